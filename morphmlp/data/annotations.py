"""Makes manifests of the annotations of Kinetics: path lists and the official CSV. Opens no video."""

from collections.abc import Sequence
from pathlib import Path

from morphmlp.data.annotation_formats import (
    KINETICS_LAYOUTS,
    AnnotatedVideo,
    Faults,
    is_kinetics_header,
    read_kinetics,
    read_lines,
    read_list,
    split_of,
)
from morphmlp.data.annotation_matching import (
    Annotations,
    LabelledRows,
    label_ids,
    match_files,
    names_seen,
    rows_without_repeats,
)
from morphmlp.data.video_folder import EXTENSIONS, VideoFolder

_NUMBERS = tuple(map(str, range(400)))
"""Stand for the names of Kinetics-400 where a list of class ids comes without them."""


def read_annotations(
    path: str | Path,
    *,
    videos: str | Path,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> Annotations:
    """Read a path list or the official Kinetics CSV, told apart by the CSV's header.

    A list holds `<relative path>,<class id>` or `<relative path> <class id>` in each line; its video ids are the paths
    without extension. The CSV's video ids are `<youtube id>_<start>_<end>`; for its files see `KINETICS_LAYOUTS`.

    Args:
        path: The annotations.
        videos: Folder that holds the videos.
        split: train, val or test; by default the CSV's own column, or what a list's file name says.
        class_names: Names in label order; by default the CSV's labels in alphabetical order, or the numbers 0 to 399
            for a list.
        allow_missing: Keep videos that aren't there, marked, instead of refusing.

    Raises:
        ManifestError: All faults with their lines, at most `MAX_FAULTS` of them named.
    """
    path = Path(path)
    faults = Faults(path)
    lines = read_lines(path, faults)
    official = bool(lines) and is_kinetics_header(lines[0][1])
    rows = read_kinetics(lines, split, faults) if official else read_list(lines, split or split_of(path), faults)
    rows = rows_without_repeats(rows, faults)
    class_order = "as given"
    if class_names is None:
        class_names, class_order = names_seen(rows) if official else (_NUMBERS, "the numbers 0 to 399")
    labelled = LabelledRows(
        rows=rows,
        labels=label_ids(rows, class_names, faults),
        class_names=class_names,
        form="official Kinetics CSV" if official else "path list",
        class_order=class_order,
    )
    folder = VideoFolder(videos)
    place = _CsvVideos(folder) if official else _ListVideos(folder)
    return match_files(labelled, place, file=path, faults=faults, allow_missing=allow_missing)


class _ListVideos:
    """Videos that a list names by their paths."""

    hint = None

    def __init__(self, folder: VideoFolder) -> None:
        self._folder = folder

    def find(self, rows: Sequence[AnnotatedVideo]) -> list[str | None]:
        return [self._folder.exact(row.names[0]) for row in rows]

    def expected(self, row: AnnotatedVideo) -> str:
        return self._folder.absolute(row.names[0])

    def missing_text(self, row: AnnotatedVideo) -> str:
        other = self._folder.other_extension(row.names[0])
        return f"no such file: {self.expected(row)}" + (f"; there is {other}" if other else "")


class _CsvVideos:
    """Videos of the official CSV, in any of the layouts."""

    def __init__(self, folder: VideoFolder) -> None:
        self._folder = folder
        self.hint = f"{folder.root}: looked for {', '.join(KINETICS_LAYOUTS)} with {' '.join(EXTENSIONS)}"

    def find(self, rows: Sequence[AnnotatedVideo]) -> list[str | None]:
        return [self._folder.by_stem(row.names) for row in rows]

    def expected(self, row: AnnotatedVideo) -> str:
        return self._folder.absolute(row.names[0] + EXTENSIONS[0])

    def missing_text(self, row: AnnotatedVideo) -> str:
        return f"no video {row.video_id} of {row.label!r}"
