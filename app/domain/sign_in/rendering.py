"""How the sign-in pages are made: templates of the standard library, into which nothing is put unescaped.

A value that is inserted is text, and escaped, unless it is `Markup`; and `Markup` comes from here only.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from msgspec import Struct

from app.core.served import MEDIA_TYPES, Asset, asset_of
from app.domain.sign_in.texts import TEXTS

FOLDER = Path(__file__).with_name("pages")
ASSETS = FOLDER / "assets"


class Markup(Struct, frozen=True):
    """HTML that is made of a template."""

    html: str


NOTHING = Markup("")
_SAID = {f"say_{name}": escape(text) for name, text in TEXTS.items()}


def fill(template: str, **values: str | Markup) -> Markup:
    """A file of `pages` with the values in it. Raises KeyError for a place that has none."""
    escaped = {name: value.html if isinstance(value, Markup) else escape(value) for name, value in values.items()}
    return Markup(_template(template).substitute(_SAID, **escaped))


@cache
def _template(name: str) -> Template:
    return Template((FOLDER / f"{name}.html").read_text(encoding="utf-8"))


def together(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(part.html for part in parts))


@cache
def assets() -> Mapping[str, Asset]:
    """The scripts and styles of the pages, by name: all that lies in the folder, and nothing else."""
    files = (path for path in ASSETS.iterdir() if path.suffix in MEDIA_TYPES)
    return {path.name: asset_of(path.name, path.read_bytes()) for path in files}


def address_of_asset(base: str, name: str) -> str:
    """With the start of its digest, so that it may be kept for ever."""
    return f"{base}/sign-in/assets/{name}?v={assets()[name].version}"
