"""The lists in which data sets are passed on, whatever their name: a path and what is said of it in each line.

`<path> <class id>`, `<path> <frame count> <class id>`, paths whose folder is the class, or columns that a header names;
separated by spaces, tabs, commas or semicolons. The disk isn't looked at.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from morphmlp.data.datasets.lines import SPLIT_WORDS, AnnotatedVideo, Faults, Table, as_table, require_split
from morphmlp.data.datasets.matching import endings_text
from morphmlp.data.datasets.video_folder import FRAMES, without_extension
from morphmlp.data.manifest import SPLITS

PATH_LIST = "<relative path>,<class id>"
FRAME_LIST = "<path> <frame count> <class id>"
PATH_COLUMNS = (
    *("path", "video_path", "clip_path", "file_path", "filepath", "frame_dir", "filename", "file_name"),
    *("file", "video", "video_name", "clip_name", "name", "video_id", "id"),
)
"""Names of columns that hold a path, the surest first; those of the others follow."""
_COUNTS = ("num_frames", "total_frames", "n_frames", "frame_count", "frames")
LABEL_COLUMNS = (
    *("class_id", "label_id", "class_idx", "label_idx"),
    *("target", "label", "labels", "class", "class_name", "tag"),
)
SPLIT_COLUMNS = ("split", "subset")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SEVERAL = re.compile(r"[-\d\s,;|]+")
_WHOLE = re.compile(r"-?[0-9]{1,9}")
"""Class ids and counts as far as a manifest's columns hold them."""
_QUOTED = re.compile(r'"((?:[^"]|"")+)"(.*)')


@dataclass(frozen=True, kw_only=True)
class FoundRows:
    """The videos of annotations; paths of a list are as they are written."""

    form: str
    """What the annotations are, in words."""
    rows: Sequence[AnnotatedVideo]
    has_names: bool = True
    """Whether labels are names of classes, not ids."""
    looked_for: str | None = None
    """Under which names videos are looked for, in words; None where the annotations name files."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """A line: its path, the whole numbers at its end, and whether they are surely no part of the path."""

    path: str
    numbers: tuple[int, ...]
    apart: bool

    @property
    def is_file(self) -> bool:
        return without_extension(self.path)[1] != ""

    @property
    def class_folder(self) -> str:
        """The folder right above the file."""
        return self.path.replace("\\", "/").rpartition("/")[0].rpartition("/")[2]


def has_list_header(lines: Sequence[tuple[int, str]]) -> bool:
    """Whether the first line names at least a path and a class."""
    table = as_table(lines)
    if table is None or any(map(_is_whole, table.header)):
        return False
    return column(table, PATH_COLUMNS) is not None and column(table, LABEL_COLUMNS) is not None


def read_list(
    lines: Sequence[tuple[int, str]],
    split: str | None,
    faults: Faults,
    *,
    endings: tuple[str, ...],
    usual_split: str | None = None,
) -> FoundRows:
    """The videos of a list; its first line that can be read tells which kind it is.

    `split` is that of all videos, whatever the list says; `usual_split` where it says none. `endings` may follow a path
    without an extension, the most wanted first.
    """
    table = as_table(lines)
    if table is not None and has_list_header(lines):
        return _read_table(table, split, faults, endings=endings, usual_split=usual_split)
    split = split or usual_split
    if lines:
        require_split(split, lines[0][0], faults)
    parsed = [(line, text, _fields(text)) for line, text in lines]
    numbered = next((fields for _, _, fields in parsed if fields.numbers), None)
    reader = _LineReader(split or "", faults, endings)
    form, read, looked_for = "path list", reader.path_row, None
    if numbered is not None and len(numbered.numbers) > 1 and not numbered.is_file:
        form, read, looked_for = "frame list", reader.frame_row, endings_text("<path>", FRAMES)
    elif numbered is None and parsed and parsed[0][2].is_file and parsed[0][2].class_folder:
        form, read = "list of paths in class folders", reader.folder_row
    rows = [row for line, text, fields in parsed if (row := read(line, text, fields)) is not None]
    return FoundRows(
        form=form,
        rows=_without_addresses(rows, faults),
        has_names=form == "list of paths in class folders",
        looked_for=looked_for,
    )


def _without_addresses(rows: Sequence[AnnotatedVideo], faults: Faults) -> list[AnnotatedVideo]:
    for row in rows:
        if _ADDRESS.match(row.video_id):
            faults.add(
                row.line, f"{row.video_id} is an address; videos must lie in a folder, one that is mounted will do"
            )
    return [row for row in rows if not _ADDRESS.match(row.video_id)]


def _fields(text: str) -> _Fields:
    """A line's path and numbers.

    A separator counts where numbers follow it; a comma goes before the space, so that paths may hold spaces.
    """
    text = text.strip(" \t,;")
    if quoted := _QUOTED.fullmatch(text):
        if not quoted[2] and (inside := _fields(quoted[1])).numbers:  # a whole line in quotes
            return inside
        rest = [part.strip('"') for part in re.split(r"[,;\s]+", quoted[2].strip(" ,;\t")) if part]
        if all(map(_is_whole, rest)) and (not quoted[2] or quoted[2][0] in ",; \t"):
            return _Fields(quoted[1].replace('""', '"').strip(), tuple(map(int, rest)), apart=True)
    for separator in ("\t", ",", ";", None):
        parts = [part.strip().strip('"') for part in text.split(separator)]
        count = 0
        while count < len(parts) - 1 and _is_whole(parts[-1 - count]):
            count += 1
        if count:
            path = text.rsplit(separator, count)[0].strip()
            return _Fields(path, tuple(map(int, parts[-count:])), apart=separator is not None)
    return _Fields(text, (), apart=False)


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None


def _is_count(text: str) -> bool:
    return _is_whole(text) and int(text) > 0


@dataclass(frozen=True)
class _LineReader:
    """Makes videos of lines, one kind of list each; what it can't read becomes a fault, and None."""

    split: str
    faults: Faults
    endings: tuple[str, ...]

    def path_row(self, line: int, text: str, fields: _Fields) -> AnnotatedVideo | None:
        """`<path> <class id>`."""
        *more, label = fields.numbers or (None,)
        if label is None:
            self.faults.add(
                line,
                f"unreadable line {text[:120]!r}; it must be `{PATH_LIST}` (or a space); names of classes need a first "
                "line `path,label`",
            )
            return None
        if more and (fields.is_file or fields.apart):
            self.faults.add(
                line,
                f"{fields.path} has {len(fields.numbers)} numbers ({_words(fields.numbers)}), which may be several "
                "classes; each video has one, so the line must be `<path> <class id>`",
            )
            return None
        # The last word of a path without extension may be a number.
        path = text.rsplit(None, 1)[0] if more else fields.path
        return video_by_path(line, path, label, self.split, self.endings)

    def frame_row(self, line: int, text: str, fields: _Fields) -> AnnotatedVideo | None:
        """`<path> <frame count> <class id>`."""
        if len(fields.numbers) > 2 or (len(fields.numbers) == 2 and fields.is_file):
            self.faults.add(
                line,
                f"{fields.path} has more than a frame count and a class id ({_words(fields.numbers)}); lists of "
                "several classes a video can't be used, and a path that holds spaces stands in quotes",
            )
            return None
        if len(fields.numbers) == 2 and fields.numbers[0] > 0:
            return _frames_by_path(line, fields.path, fields.numbers[1], self.split, fields.numbers[0])
        words = [word.strip() for word in re.split(r"[\t,;]" if re.search(r"[\t,;]", text) else r"\s+", text.strip())]
        if len(words) != 3:
            self.faults.add(line, f"unreadable line {text[:120]!r}; it must be `{FRAME_LIST}`")
            return None
        if not _is_count(words[1]):
            self.faults.add(line, f"frame count {words[1]!r} of video {words[0]} must be a whole number above 0")
        if not _is_whole(words[2]):
            self.faults.add(line, f"class id {words[2]!r} of video {words[0]} must be a whole number")
        return None

    def folder_row(self, line: int, text: str, fields: _Fields) -> AnnotatedVideo | None:
        """`<class>/<video file>`."""
        if fields.numbers or not fields.is_file or not fields.class_folder:
            self.faults.add(
                line, f"unreadable line {text[:120]!r}; it must be `<class>/<video file>`, as the first line is"
            )
            return None
        return video_by_path(line, fields.path, fields.class_folder, self.split, self.endings)


def _read_table(
    table: Table, split: str | None, faults: Faults, *, endings: tuple[str, ...], usual_split: str | None
) -> FoundRows:
    """A list whose header names at least a path and a class."""
    columns = [column(table, names) or "" for names in (PATH_COLUMNS, LABEL_COLUMNS, _COUNTS, SPLIT_COLUMNS)]
    usual_split = split or (None if columns[-1] else usual_split)
    if not columns[-1]:
        require_split(usual_split, table.line, faults)
    lines = [(line, [cells[name] if name else "" for name in columns]) for line, cells in table.rows(faults)]
    has_names = not any(_is_whole(label) for _, (_, label, _, _) in lines)
    rows = []
    for line, (path, label, count, said) in lines:
        before = len(faults)
        if not path or not label:
            faults.add(line, f"unreadable line: {columns[0]} is {path!r} and {columns[1]} {label!r}; both are needed")
        elif not _is_whole(label) and (not has_names or _SEVERAL.fullmatch(label)):
            faults.add(line, f"{columns[1]} is {label!r}; it must be one class id")
        if usual_split is None and columns[-1] and said.lower() not in SPLIT_WORDS:
            faults.add(line, f"{columns[-1]} is {said!r}; it must be one of {', '.join(SPLITS)}")
        if count and not _is_count(count):
            faults.add(line, f"{columns[2]} is {count!r}; it must be a whole number above 0")
        if len(faults) > before:
            continue
        its_label = label if has_names else int(label)
        its_split = usual_split or SPLIT_WORDS.get(said.lower(), "")
        if count and not without_extension(path)[1]:
            rows.append(_frames_by_path(line, path, its_label, its_split, int(count)))
        else:
            rows.append(video_by_path(line, path, its_label, its_split, endings))
    return FoundRows(form="list with a header", rows=_without_addresses(rows, faults), has_names=has_names)


def video_by_path(line: int, path: str, label: int | str, split: str, endings: tuple[str, ...]) -> AnnotatedVideo:
    """A video that is named by its path: with its extension, or with whatever there is."""
    stem, extension = without_extension(path)
    wanted = (extension,) if extension else ("", *endings)
    return AnnotatedVideo(line, path, label, split, (stem,), wanted, by_path=True)


def _frames_by_path(line: int, path: str, label: int | str, split: str, count: int) -> AnnotatedVideo:
    return AnnotatedVideo(line, path, label, split, (path,), FRAMES, num_frames=count)


def column(table: Table, names: Sequence[str]) -> str | None:
    """The first of these columns that a table has."""
    return next((name for name in names if name in table.header), None)


def _words(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
