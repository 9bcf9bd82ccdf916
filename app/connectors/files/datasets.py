"""Keys of an object store grouped into datasets, and the patterns that name them.

Numbers, dates, hashes and values of `name=value` folders become `*`, so that `sales/year=2024/part-0001.csv` and its
10,000 siblings are the one object `sales / year=* / part-*.csv`. What tools keep for themselves (`_SUCCESS`,
`_delta_log/`, `.crc`) and markers of empty folders are nobody's data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from app.connectors.values.wildcards import is_shown, matches

MAX_DATASETS: Final = 5_000
TOO_MANY_DATASETS: Final = f"There are more than {MAX_DATASETS:,} datasets; those beyond were left out."
MAX_NAMES_IN_A_FOLDER: Final = 20
"""More differently named files of one format in a folder are taken for parts of one dataset."""
_VARYING: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|[0-9]+(?:[-_.:T][0-9]+)*", re.I
)
_PARTITION: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.*)")
_COMPRESSIONS: Final = frozenset({"gz", "zst", "bz2", "snappy"})


class Scope(msgspec.Struct, frozen=True):
    """Which keys of a store a source shows."""

    folder: str
    """Without slashes around it; empty for everything."""
    included: tuple[str, ...] = ()
    """Patterns of whole keys. None at all stands for every key."""
    excluded: tuple[str, ...] = ()

    def shows(self, key: str) -> bool:
        if self.folder and not key.startswith(self.folder + "/"):
            return False
        return is_shown(key, self.included, self.excluded)


class Dataset(msgspec.Struct):
    path: tuple[str, ...]
    sample: str
    """The first of its files that is not empty; tools write an empty one for a part without rows."""
    sample_size: int
    files: int = 1

    def take(self, sample: str, sample_size: int, files: int = 1) -> None:
        if not self.sample_size:
            self.sample, self.sample_size = sample, sample_size
        self.files += files

    @property
    def kind(self) -> str:
        return "dataset" if self.files > 1 else "file"


class Datasets:
    """Groups keys as they come, in memory that the number of keys does not move."""

    def __init__(self) -> None:
        self._folders: dict[tuple[tuple[str, ...], str], dict[str, Dataset]] = {}
        self._count = 0
        self.is_full = False
        """Whether a dataset was left out."""

    def add(self, key: str, size: int) -> None:
        if not is_data(key, size):
            return
        *folders, name = key.split("/")
        folder = tuple(_generalised_folder(part) for part in folders)
        extension = _extension(name)
        group = self._folders.get((folder, extension))
        if group is None:
            if self._count >= MAX_DATASETS:
                self.is_full = True
                return
            group = self._folders.setdefault((folder, extension), {})
        pattern = "*" + extension if "*" + extension in group else _generalised(name, extension)
        if pattern in group:
            group[pattern].take(key, size)
        elif self._count < MAX_DATASETS:
            group[pattern] = Dataset((*folder, pattern), key, size)
            self._count += 1
            if len(group) > MAX_NAMES_IN_A_FOLDER:
                self._collapse(group, folder, extension)
        else:
            self.is_full = True

    def _collapse(self, group: dict[str, Dataset], folder: tuple[str, ...], extension: str) -> None:
        whole, *others = group.values()
        for other in others:
            whole.take(other.sample, other.sample_size, other.files)
        whole.path = (*folder, "*" + extension)
        self._count -= len(group) - 1
        group.clear()
        group["*" + extension] = whole

    def __iter__(self) -> Iterator[Dataset]:
        """Sorted by path. A pattern that stands for one file only is that file."""
        found = [dataset for group in self._folders.values() for dataset in group.values()]
        for dataset in found:
            if dataset.files == 1:
                dataset.path = tuple(dataset.sample.split("/"))
        return iter(sorted(found, key=lambda dataset: dataset.path))


def is_data(key: str, size: int) -> bool:
    """Folder markers are empty keys without an extension: clients write them as `a/`, and some list them as `a`."""
    *folders, name = key.split("/")
    if not name or name.startswith(("_", ".")) or (not size and not _extension(name)):
        return False
    return not any(_is_a_tools_own(folder) for folder in folders)


def _is_a_tools_own(folder: str) -> bool:
    """A dot or two for a name are no path here, and nobody's own."""
    return folder.startswith(("_", ".")) and folder not in {".", ".."} and not _PARTITION.fullmatch(folder)


def partitions(key: str) -> list[tuple[str, str]]:
    """Names and values of the `name=value` folders above a file, from the outside in."""
    found = (_PARTITION.fullmatch(folder) for folder in key.split("/")[:-1])
    return [(match[1], match[2]) for match in found if match]


def _generalised_folder(name: str) -> str:
    if found := _PARTITION.fullmatch(name):
        return f"{found[1]}=*"
    return "*" if _VARYING.fullmatch(name) else name


def _generalised(name: str, extension: str) -> str:
    stem = name[: len(name) - len(extension)]
    return _VARYING.sub("*", stem) + extension


def _extension(name: str) -> str:
    stem, dot, last = name.rpartition(".")
    if not dot or not stem:
        return ""
    if last.lower() in _COMPRESSIONS and "." in stem:
        return "." + stem.rpartition(".")[2] + "." + last
    return "." + last


# Patterns -------------------------------------------------------------------------------------------------------------


def is_pattern(path: Sequence[str]) -> bool:
    return any("*" in name for name in path)


def fixed_part(path: Sequence[str]) -> tuple[str, str]:
    """The folder above the first name with a star, and what stands in that name before the star: a place to list, and
    one to start from."""
    for place, name in enumerate(path):
        if "*" in name:
            return "/".join(path[:place]), name.partition("*")[0]
    return "/".join(path[:-1]), path[-1]


def matches_path(key: str, path: Sequence[str]) -> bool:
    """Name by name: a star does not reach across folders."""
    names = key.split("/")
    return len(names) == len(path) and all(map(matches, names, path))
