"""Takes the bundles of the documentation pages into the hub's wheel, out of the packages that carry them.

Those packages are requirements of the build and of nothing else: what they depend on (Flask, pydantic) is never
installed beside the hub. In an editable install the bundles lie in the environment, as after an install of the wheel.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "data_fusion_hub_pages"
"""A folder of its own in the environment, where `app/api/docs.py` finds it in both kinds of install."""
TAKEN = {
    "redoc.js": ("flask_openapi_redoc", "templates/redoc/js/redoc.standalone.js"),
    "redoc.svg": ("flask_openapi_redoc", "templates/redoc/images/redoc.svg"),
    "swagger.js": ("flask_openapi_swagger", "templates/swagger/js/swagger-ui-bundle.js"),
    "swagger.css": ("flask_openapi_swagger", "templates/swagger/css/swagger-ui.css"),
    "scalar.js": ("flask_openapi_scalar", "templates/scalar/js/scalar.standalone.js"),
}


class Bundles(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        pages = {str(_inside(*place)): f"{FOLDER}/{name}" for name, place in TAKEN.items()}
        for licence in Path(self.root, "licences").glob("*.txt"):
            pages[str(licence)] = f"{FOLDER}/{licence.stem}.LICENSE.txt"
        build_data["force_include_editable" if version == "editable" else "force_include"].update(pages)


def _inside(package: str, path: str) -> Path:
    """A file of a package, which is found without being imported: it would import Flask."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The build needs the package {package}, which pyproject.toml requires.")
    return Path(spec.submodule_search_locations[0], path)
