"""The lines of annotations and their faults, and the text formats of Kinetics: path lists and the official CSV.

Asks nothing of the disk but the text file itself. The formats of Something-Something are in `something_formats`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from morphmlp.data.manifest import SPLITS
from morphmlp.errors import ManifestError

MAX_FAULTS = 20
"""Faults named; the rest is counted."""
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
KINETICS_LAYOUTS = ("<split>/<label>/<id>_<start>_<end>", "<label>/<id>_<start>_<end>", "<id>_<start>_<end>", "<id>")
"""Where a video of the official CSV is looked for below the videos' folder, in this order, with any of
`video_folder.EXTENSIONS`. Start and end have six digits; the label's spaces may be underscores."""
_SPLIT_WORDS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class AnnotatedVideo:
    """One line of an annotation file.

    Attributes:
        line: Its number, from 1.
        video_id: Name of the video in manifests and results.
        label: Class id of a list, class name of the CSV.
        split: train, val or test.
        names: Paths to look for below the videos' folder: one in a list, those of the layouts, without extension, in
            the CSV, the video's id in Something-Something.
        num_frames: Frames that the line promises; None where it doesn't say.
    """

    line: int
    video_id: str
    label: int | str
    split: str
    names: tuple[str, ...]
    num_frames: int | None = None


class Faults:
    """Faults of one file by line, so that all of them are told at once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int, what: str) -> None:
        """Note what is wrong with a line."""
        self._found.append((line, f"{self._file}:{line}: {what}"))

    def lines(self) -> list[str]:
        """`FILE:LINE: what`, in the order of the file."""
        return [text for _, text in sorted(self._found)]

    def raise_if_any(self, *hints: str) -> None:
        """Raise the first `MAX_FAULTS`, how many more there are, and the hints."""
        if self._found:
            more = len(self._found) - MAX_FAULTS
            rest = [f"{self._file}: and {more} more"] if more > 0 else []
            raise ManifestError("\n".join([*self.lines()[:MAX_FAULTS], *rest, *hints]))


def read_content(path: Path) -> bytes:
    """The bytes of a text file, without the mark that some editors put before UTF-8.

    Raises:
        ManifestError: The file can't be read.
    """
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror}") from None


def read_lines(path: Path, faults: Faults) -> list[tuple[int, str]]:
    """Lines with their numbers, blank ones left out."""
    return lines_of(read_content(path), faults)


def lines_of(content: bytes, faults: Faults) -> list[tuple[int, str]]:
    """The lines of a text file's bytes with their numbers, blank ones left out."""
    lines = []
    for number, raw in enumerate(content.splitlines(), start=1):
        try:
            text = raw.decode().rstrip()
        except UnicodeDecodeError:
            faults.add(number, f"unreadable line {raw[:60]!r}; it must be UTF-8 text")
            continue
        if text.strip():
            lines.append((number, text))
    return lines


def is_kinetics_header(text: str) -> bool:
    """Whether a first line is that of the official CSV."""
    return "youtube_id" in _header(text)


def read_list(lines: Sequence[tuple[int, str]], split: str | None, faults: Faults) -> list[AnnotatedVideo]:
    """The videos of `<relative path>,<class id>` or `<relative path> <class id>` lines; skips a `path,label` header."""
    if lines and _header(lines[0][1]) == ["path", "label"]:
        lines = lines[1:]
    if lines:
        require_split(split, lines[0][0], faults)
    rows = []
    for line, text in lines:
        parts = _path_and_label(text)
        if parts is None:
            faults.add(line, f"unreadable line {text[:120]!r}; it must be `<relative path>,<class id>` (or a space)")
            continue
        name, label = parts
        folder, slash, file = name.rpartition("/")
        stem = file.rpartition(".")[0] or file
        rows.append(AnnotatedVideo(line, f"{folder}{slash}{stem}", label, split or "", (name,)))
    return rows


def require_split(split: str | None, line: int, faults: Faults) -> None:
    """Note a fault where nothing says the split."""
    if split is None:
        faults.add(line, f"neither the list nor its name says the split; give --split {'|'.join(SPLITS)}")


def _path_and_label(text: str) -> tuple[str, int] | None:
    """The two fields of a list's line; the comma goes before the space, so that paths may hold spaces."""
    for fields in (text.rsplit(",", 1), text.rsplit(None, 1)):
        if len(fields) == 2:
            name, label = fields[0].strip(), fields[1].strip()
            if name and label.removeprefix("-").isdecimal():
                return name, int(label)
    return None


def read_kinetics(lines: Sequence[tuple[int, str]], split: str | None, faults: Faults) -> list[AnnotatedVideo]:
    """The videos of the official CSV, whose first line names the columns; further columns don't matter."""
    header = _header(lines[0][1])
    if lacking := [name for name in KINETICS_COLUMNS if name not in header and not (name == "split" and split)]:
        faults.add(lines[0][0], f"the header has no {', '.join(lacking)}; it must be {','.join(KINETICS_COLUMNS)}")
        return []
    rows = []
    for line, text in lines[1:]:
        try:
            fields = next(csv.reader([text], strict=True))
        except csv.Error as error:
            faults.add(line, f"unreadable line {text[:120]!r}: {error}")
            continue
        if len(fields) != len(header):
            faults.add(line, f"unreadable line {text[:120]!r}: {len(fields)} fields, the header has {len(header)}")
            continue
        row = _kinetics_video(line, dict(zip(header, map(str.strip, fields), strict=True)), split, faults)
        if row is not None:
            rows.append(row)
    return rows


def _kinetics_video(line: int, cells: dict[str, str], split: str | None, faults: Faults) -> AnnotatedVideo | None:
    label, youtube_id, said = cells["label"], cells["youtube_id"], cells.get("split", split or "")
    times = cells["time_start"], cells["time_end"]
    before = len(faults)
    if not label or not youtube_id:
        faults.add(line, f"unreadable line: label is {label!r} and youtube_id {youtube_id!r}; both must be given")
    if not all(_is_seconds(time) for time in times):
        faults.add(line, f"unreadable line: time_start is {times[0]!r} and time_end {times[1]!r}; both must be seconds")
    if said not in _SPLIT_WORDS:
        faults.add(line, f"split is {said!r}; it must be one of {', '.join(SPLITS)}")
    if len(faults) > before:
        return None
    name = f"{youtube_id}_{int(float(times[0])):06d}_{int(float(times[1])):06d}"
    folders = dict.fromkeys((label, label.replace(" ", "_")))
    splits = dict.fromkeys((said, _SPLIT_WORDS[said]))
    names = (
        *(f"{part}/{folder}/{name}" for part in splits for folder in folders),
        *(f"{folder}/{name}" for folder in folders),
        name,
        youtube_id,
    )
    return AnnotatedVideo(line, name, label, split or _SPLIT_WORDS[said], names)


def _header(text: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in text.split(",")]


def _is_seconds(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def split_of(path: Path) -> str | None:
    """The split that a list's file name says (`train.csv`, `kinetics400_val_list.txt`), or None."""
    words = path.stem.lower().replace("-", "_").split("_")
    said = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return said.pop() if len(said) == 1 else None
