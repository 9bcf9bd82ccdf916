"""Keys of an object store grouped into datasets, and the patterns that name them.

Numbers, dates, hashes and values of `name=value` folders become `*`, so that `sales/year=2024/part-0001.csv` and its
10,000 siblings are the one object `sales / year=* / part-*.csv`. What tools keep for themselves (`_SUCCESS`,
`_delta_log/`, `.crc`) and markers of empty folders are nobody's data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import unquote

import msgspec

from app.connectors.values.grouping import Groups
from app.connectors.values.wildcards import is_shown, matches

MAX_DATASETS: Final = 5_000
TOO_MANY_DATASETS: Final = f"There are more than {MAX_DATASETS:,} datasets; those beyond were left out."
MAX_NAMES_IN_A_FOLDER: Final = 20
"""More differently named files of one format in a folder are taken for parts of one dataset."""
_VARYING: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|[0-9]+(?:[-_.:T][0-9]+)*", re.I
)
_PARTITION: Final = re.compile(r"([^\W\d][^=]*)=(.*)", re.DOTALL)
NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
"""Hive's name for the folder of the rows that have none."""
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

    def absorb(self, other: Dataset) -> None:
        if (not other.sample_size, other.sample) < (not self.sample_size, self.sample):
            self.sample, self.sample_size = other.sample, other.sample_size
        self.files += other.files

    @property
    def kind(self) -> str:
        return "dataset" if self.files > 1 else "file"


class Datasets:
    """Groups keys as they come, in any order."""

    def __init__(self) -> None:
        self._groups: Groups[Dataset] = Groups(MAX_DATASETS, lambda _: MAX_NAMES_IN_A_FOLDER)

    def add(self, key: str, size: int) -> None:
        if not is_data(key, size):
            return
        *folder, pattern = generalised(key)
        self._groups.add((tuple(folder), _extension(key.rpartition("/")[2])), pattern, Dataset((), key, size))

    @property
    def is_full(self) -> bool:
        """Whether a dataset is left out."""
        return self._groups.is_full

    def __iter__(self) -> Iterator[Dataset]:
        """Sorted by path. A pattern that stands for one file only is that file."""
        found = []
        for (folder, extension), pattern, dataset in self._groups:
            dataset.path = (*folder, "*" + extension if pattern is None else pattern)
            if dataset.files == 1:
                dataset.path = tuple(dataset.sample.split("/"))
            found.append(dataset)
        return iter(sorted(found, key=lambda dataset: (dataset.path, dataset.sample)))


def is_data(key: str, size: int) -> bool:
    """Folder markers are empty keys without an extension: clients write them as `a/`, and some list them as `a`."""
    *folders, name = key.split("/")
    if not name or name.startswith(("_", ".")) or (not size and not _extension(name)):
        return False
    return not any(_is_a_tools_own(folder) for folder in folders)


def _is_a_tools_own(folder: str) -> bool:
    """A dot or two for a name are no path here, and nobody's own."""
    return folder.startswith(("_", ".")) and folder not in {".", ".."} and not _PARTITION.fullmatch(folder)


def partitions(key: str) -> list[tuple[str, str | None]]:
    """Names and values of the `name=value` folders above a file, from the outside in."""
    found = (_PARTITION.fullmatch(folder) for folder in key.split("/")[:-1])
    return [(_unescaped(match[1]), partition_value(match[2])) for match in found if match]


def partition_value(text: str) -> str | None:
    """As Hive and Spark mean the name of a folder."""
    return None if text == NO_VALUE else _unescaped(text)


def _unescaped(text: str) -> str:
    """What is no escape, or no character, is left as it is."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def generalised(key: str) -> tuple[str, ...]:
    """The names of a key, with `*` for what tells it from its siblings."""
    *folders, name = key.split("/")
    return (*map(_generalised_folder, folders), _generalised(name, _extension(name)))


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


class SampleSearch:
    """Looks for the file that stands for a path with stars, among the keys of a listing.

    Files whose own pattern the path is come first: beside `1.csv` and `2.csv`, which are `*.csv`, there may lie an
    `orders.csv` of its own. Where none is, the path is that of a folder with very many names, and any of them will do.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self.own: Dataset | None = None
        self.other: Dataset | None = None
        self._path = tuple(path)
        self._patterns: set[tuple[str, ...]] = set()

    def look_at(self, key: str, size: int) -> None:
        if not matches_path(key, self._path) or not is_data(key, size):
            return
        found, pattern = Dataset((), key, size), generalised(key)
        if pattern == self._path or key.split("/") == list(self._path):
            self.own = self._better(self.own, found)
        else:
            if pattern[:-1] == self._path[:-1]:
                self._patterns.add(pattern)
            self.other = self._better(self.other, found)

    @staticmethod
    def _better(known: Dataset | None, found: Dataset) -> Dataset:
        if known is not None:
            known.absorb(found)
        return known or found

    @property
    def is_over(self) -> bool:
        """Whether a further key would change nothing: there is a file that is not empty."""
        if self.own is not None and self.own.sample_size:
            return True
        is_of_many = len(self._patterns) > MAX_NAMES_IN_A_FOLDER
        return is_of_many and self.other is not None and bool(self.other.sample_size)

    @property
    def found(self) -> Dataset | None:
        return self.own or self.other
