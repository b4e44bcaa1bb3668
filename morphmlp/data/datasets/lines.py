"""What all annotation files have in common: lines, tables with a header, faults, and the videos that they speak of.

Asks nothing of the disk but the text file itself. The formats are in `list_formats`, `kinetics_formats` and
`something`.
"""

import codecs
import csv
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from morphmlp.data.manifest import SPLITS
from morphmlp.errors import ManifestError

MAX_FAULTS = 20
"""Faults named; the rest is counted."""
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SPLIT_IN_NAME = re.compile(rf"({'|'.join(SPLIT_WORDS)})(list|set|split|videos)?\d*")
_NOT_TEXT = "isn't a text file"


@dataclass(frozen=True, slots=True)
class AnnotatedVideo:
    """One video of an annotation file, whose lines are counted from 1."""

    line: int
    video_id: str
    """Name of the video in manifests and results; of a list, its path as it is written."""
    label: int | str
    """Class id, or the name of the class."""
    split: str
    names: tuple[str, ...]
    """Paths to look for below the videos' folder, without their endings; absolute ones too."""
    endings: tuple[str, ...]
    """What may follow a name, the most wanted first (see `video_folder`)."""
    num_frames: int | None = None
    """Frames that the line promises; None where it doesn't say."""
    by_path: bool = False
    """Whether the line names one file, not an id."""


class Faults:
    """Faults of one file by line, so that all of them are told at once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int, what: str) -> None:
        """Note what is wrong with a line."""
        self._found.append((line, f"{self.file}:{line}: {what}"))

    def lines(self) -> list[str]:
        """`FILE:LINE: what`, in the order of the file."""
        return [text for _, text in sorted(self._found)]

    def raise_if_any(self, *hints: str) -> None:
        """Raise the first `MAX_FAULTS`, how many more there are, and the hints."""
        if self._found:
            more = len(self._found) - MAX_FAULTS
            rest = [f"{self.file}: and {more} more"] if more > 0 else []
            raise ManifestError("\n".join([*self.lines()[:MAX_FAULTS], *rest, *hints]))


def read_content(path: Path) -> bytes:
    """The bytes of a text file as UTF-8, without the mark that some editors put first; UTF-16 is told by its mark.

    Raises:
        ManifestError: The file can't be read, or isn't text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeError:
            raise ManifestError(f"{path}: {_NOT_TEXT}: it begins like UTF-16, and the rest isn't") from None
    if content.startswith(b"PAR1"):
        raise ManifestError(f"{path}: {_NOT_TEXT} but a Parquet file; a manifest is what is made of annotations")
    if b"\0" in content:
        raise ManifestError(f"{path}: {_NOT_TEXT}: it holds bytes of 0; it must be UTF-8 text")
    return content.removeprefix(codecs.BOM_UTF8)


def lines_of(content: bytes, faults: Faults) -> list[tuple[int, str]]:
    """The lines of a text file's bytes with their numbers, blank ones left out; accents as one character (NFC)."""
    lines = []
    for number, raw in enumerate(content.splitlines(), start=1):
        try:
            text = composed(raw.decode().rstrip())
        except UnicodeDecodeError:
            faults.add(number, f"unreadable line {raw[:60]!r}; it must be UTF-8 text (of a spreadsheet: CSV UTF-8)")
            continue
        if text.strip():
            lines.append((number, text))
    return lines


def composed(text: str) -> str:
    """Text with each accented letter as one character (NFC), in whatever form it came."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def json_objects(
    content: bytes, faults: Faults, *, named: bool, what: str
) -> list[tuple[int, str, Mapping[str, object]]]:
    """The objects of a JSON list, or of an object that names them, each with the line on which it begins.

    Something else is a fault, in the words of `what`, and holds none. Entries of a list have an empty name.
    """
    try:
        return list(_json_objects(composed(content.decode()), named=named))
    except UnicodeDecodeError as error:
        faults.add(content.count(b"\n", 0, error.start) + 1, "unreadable line; it must be UTF-8 text")
    except json.JSONDecodeError as error:
        faults.add(error.lineno, f"not a JSON {what}: {error.msg} at column {error.colno}")
    return []


def _json_objects(text: str, *, named: bool) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    """By hand: `json.load` doesn't tell the lines, and of a name that stands there twice it keeps one."""
    # Whole numbers stay text: here they are ids and seconds, and Python refuses to make numbers of very long ones.
    decoder, (opening, closing) = json.JSONDecoder(parse_int=str), "{}" if named else "[]"
    place = _after_space(text, 0)
    if text[place : place + 1] != opening:
        raise json.JSONDecodeError(f"it must begin with {opening}", text, place)
    line, counted = 1, 0
    place = _after_space(text, place + 1)
    while text[place : place + 1] != closing:
        line, counted = line + text.count("\n", counted, place), place
        name: object = ""
        if named:
            name, place = decoder.raw_decode(text, place)
            place = _after_space(text, place)
            if not isinstance(name, str) or text[place : place + 1] != ":":
                raise json.JSONDecodeError("Expecting a name and ':'", text, place)
            place = _after_space(text, place + 1)
        value, end = decoder.raw_decode(text, place)
        if not isinstance(value, dict):
            raise json.JSONDecodeError("this is not an object", text, place)
        yield line, str(name), value
        place = _after_space(text, end)
        if text[place : place + 1] == ",":
            place = _after_space(text, place + 1)
        elif text[place : place + 1] != closing:
            raise json.JSONDecodeError(f"Expecting ',' or '{closing}'", text, place)
    if (rest := _after_space(text, place + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _after_space(text: str, place: int) -> int:
    """The place of the next character that isn't white space, or the text's length."""
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def require_split(split: str | None, line: int, faults: Faults) -> None:
    """Note a fault where nothing says the split."""
    if split is None:
        faults.add(line, f"neither the list nor its name says the split; give --split {'|'.join(SPLITS)}")


def split_of(path: Path) -> str | None:
    """The split that a list's file name says (`train.csv`, `kinetics400_val_list.txt`, `testlist01.txt`), or None."""
    words = path.stem.lower().replace("-", "_").split("_")
    said = {SPLIT_WORDS[match[1]] for word in words if (match := _SPLIT_IN_NAME.fullmatch(word))}
    return said.pop() if len(said) == 1 else None


@dataclass(frozen=True)
class Table:
    """A file whose first line, the one of this number, names the columns."""

    line: int
    header: tuple[str, ...]
    """In small letters."""
    delimiter: str
    body: Sequence[tuple[int, str]]
    """The other lines with their numbers."""

    def rows(self, faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
        """The lines as cells by column; what isn't such a line is a fault."""
        for line, text in self.body:
            try:
                fields = next(csv.reader([text], delimiter=self.delimiter, strict=True))
            except csv.Error as error:
                faults.add(line, f"unreadable line {text[:120]!r}: {error}")
                continue
            if len(fields) != len(self.header):
                faults.add(
                    line, f"unreadable line {text[:120]!r}: {len(fields)} fields, the header has {len(self.header)}"
                )
                continue
            yield line, dict(zip(self.header, map(str.strip, fields), strict=True))


def as_table(lines: Sequence[tuple[int, str]]) -> Table | None:
    """A file's lines as a table, parted by what its first line holds most of; None where that is one field."""
    if not lines:
        return None
    line, text = lines[0]
    delimiter = max(",;\t ", key=text.count)
    names = tuple(name.strip().strip('"').lower() for name in text.split(delimiter))
    return Table(line, names, delimiter, lines[1:]) if len(names) > 1 else None
