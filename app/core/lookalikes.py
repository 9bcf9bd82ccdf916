"""Names that look like others: letters of one script that stand for those of another (Unicode Technical Standard 39).

Scripts are told by the names that Unicode gives its characters, so that nothing has to be kept up to date here but the
short table of letters that look like Latin ones.
"""

import re
import unicodedata
from collections.abc import Iterator

from app.core.errors import Fault
from app.core.schemas import INVISIBLE, canonical_name, single_spaced, visible

_CHANGES_LOOKS = frozenset("\u200c\u200d\ufe0e\ufe0f")
_LOOKS_CHANGE = frozenset(("Lo", "Mn", "Mc", "So", "Sk"))
"""Categories of characters: letters without case, marks and pictures."""
_WORD = re.compile(r"[^\W\d_]+")
_TOGETHER = frozenset(("LATIN", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"))
"""Scripts that are written within one word (UTS 39 section 5.2, "highly restrictive")."""
_OF_NO_SCRIPT = frozenset(("MODIFIER", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"))
_LIKE_LATIN = str.maketrans(
    "авсеһіјкӏмнорԛѕтуѵԝхԁьүαβεηικμνορτυχωօսհոցզᎠᎡᎢᎪᎫᎬᎳᎷᎻᎽᏀᏃᏚᏞᏟᏢᏦᏴꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴıɩɑɡ"
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "abcehijklmhopqstyvwxdbyabehikmnoptuxwouhngqdrtajewmhygzslcpkbbpdtgkjczfmnlsrvhwxyaeiouiiag"
    "abcdefghijklmnoprstuvwyz",
)
"""Of Cyrillic, Greek, Armenian, Cherokee, Lisu and rare Latin, folded, by the shape of their capitals or small ones."""
_SYMBOLS = frozenset("αβεημτχω")
"""Greek letters that mean something by themselves, as in `β release`, and look like no Latin ones."""


def written_alike(value: str, path: str) -> Iterator[Fault]:
    """Rule: no word is of several scripts, and no word that looks Latin and is not stands among Latin ones."""
    if value.isascii():
        return
    words = _words(value)
    scripts = [_scripts(word) for word in words]
    is_latin = any("LATIN" in each for each in scripts)
    for word, each in zip(words, scripts, strict=True):
        if (len(each) > 1 and not each <= _TOGETHER) or (is_latin and "LATIN" not in each and looks_latin(word)):
            yield Fault(path, "mixed_scripts", "mixes letters of several scripts that look alike")
            return


def well_named(value: str, path: str) -> Iterator[Fault]:
    """Rule for what people tell apart by its name."""
    yield from visible(value, path)
    yield from written_alike(value, path)


def each_well_named(values: list[str], path: str) -> Iterator[Fault]:
    """Rule: the same for each of a list."""
    for index, value in enumerate(values):
        if any(well_named(value, "")):  # a path for each of ten thousand tags would cost more than all else
            yield from well_named(value, f"{path}[{index}]")


def plainly_written(text: str) -> str:
    """As people read it: single spaced, composed (NFC), and without what shows nothing, but for joiners and variation
    selectors that change how what stands before them looks, as in Persian, Hindi and pictures."""
    if text.isascii():
        return single_spaced(text)
    kept: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        before = unicodedata.category(kept[-1]) if kept else ""
        if not INVISIBLE.match(character) or (character in _CHANGES_LOOKS and before in _LOOKS_CHANGE):
            kept.append(character)
    return single_spaced("".join(kept))


def looks_latin(word: str) -> bool:
    """Whether all letters are of the table, in one case or the other."""
    return word not in _SYMBOLS and word.casefold().translate(_LIKE_LATIN).isascii()


def latin_reading(name: str) -> str:
    """The canonical name that somebody reads who takes every look-alike for Latin."""
    canonical = canonical_name(name)
    return canonical if canonical.isascii() else canonical.translate(_LIKE_LATIN)


def _words(text: str) -> list[str]:
    """Runs of letters, without what is invisible and without marks: an accent makes no letter another script's."""
    decomposed = unicodedata.normalize("NFD", INVISIBLE.sub("", unicodedata.normalize("NFKC", text)))
    return _WORD.findall("".join(each for each in decomposed if not unicodedata.combining(each)))


def _scripts(word: str) -> set[str]:
    found = {unicodedata.name(letter, "?").split(" ", 1)[0] for letter in word}
    return found - _OF_NO_SCRIPT
