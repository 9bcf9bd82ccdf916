"""Reads who imports whom out of the source, wherever in a file the import stands."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import app

ROOT = Path(app.__file__).parent


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All of a file's syntax tree. Kept until it is forgotten: tests go over every file of the application, one after the other,
    and change nothing in it."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Every module of ours that the file imports, wherever in the file the import stands."""
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            if node.module is not None and node.module.split(".")[0] == "app":
                yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "app")


def name_of(path: Path) -> str:
    return ".".join(("app", *path.relative_to(ROOT).with_suffix("").parts))
