"""Makes manifests of the annotations of Something-Something V1 and V2. Opens no video.

The 174 classes are templates, and their ids are the templates' alphabetical order in both versions. So a label file
with one template per line is put in that order, whatever its own: that of V1 has another, and so has a list of V2's
templates that goes around.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from morphmlp.data.annotation_formats import AnnotatedVideo, Faults
from morphmlp.data.annotation_matching import (
    Annotations,
    LabelledRows,
    label_ids,
    match_files,
    names_seen,
    rows_without_repeats,
)
from morphmlp.data.class_list import read_class_list
from morphmlp.data.something_folder import FRAMES, VIDEOS_OR_FRAMES, SomethingFolder
from morphmlp.data.something_formats import read_something_rows, without_brackets

Version = Literal["ssv1", "ssv2"]
NUM_CLASSES = 174
_NUMBERS = tuple(map(str, range(NUM_CLASSES)))
"""Stand for the templates where a frame list comes without them."""


def read_templates(path: str | Path) -> tuple[str, ...]:
    """The classes in label order, from an official label file or a manifest.

    The label file of V1 has one template per line and no ids, so the templates are sorted; that of V2 (JSON) and
    `template<TAB>id` lines say the ids. Brackets are left out.

    Raises:
        ManifestError: All faults with their lines.
    """
    return read_class_list(path, unnumbered="alphabetical", clean=without_brackets)


def read_something(
    path: str | Path,
    *,
    version: Version,
    videos: str | Path,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> Annotations:
    """Read a frame list, the official CSV or the official JSON, told apart by what they hold.

    Video ids are those of the file. Videos are folders of frames or packed frames (`<id>.zip`); where the official
    annotations of V2 name them, they are `<id>.webm`, or the same video under another extension, first.

    Args:
        path: The annotations.
        version: Of the data set.
        videos: Folder that holds the videos, all in one place.
        split: train, val or test; by default what the file's name says.
        class_names: Templates in label order, see `read_templates`; by default those of this file in alphabetical
            order, or the numbers 0 to 173 for a frame list.
        allow_missing: Keep videos that aren't there, marked, instead of refusing.

    Raises:
        ManifestError: All faults with their lines, at most `MAX_FAULTS` of them named.
    """
    path = Path(path)
    faults = Faults(path)
    annotated = read_something_rows(path, split, faults)
    rows = rows_without_repeats(annotated.rows, faults)
    class_order = "as given"
    if class_names is None:
        numbers = _NUMBERS, f"the numbers 0 to {NUM_CLASSES - 1}"
        class_names, class_order = names_seen(rows) if annotated.has_templates else numbers
    labelled = LabelledRows(
        rows=rows,
        labels=label_ids(rows, class_names, faults),
        class_names=class_names,
        form=annotated.form,
        class_order=class_order,
        warnings=_warnings(path, rows),
    )
    endings = VIDEOS_OR_FRAMES if version == "ssv2" and annotated.has_templates else FRAMES
    folder = SomethingFolder(videos, endings)
    return match_files(labelled, folder, file=path, faults=faults, allow_missing=allow_missing)


def _warnings(path: Path, rows: Sequence[AnnotatedVideo]) -> tuple[str, ...]:
    if len(rows) > 1 and all(row.label == 0 for row in rows):
        return (
            f"{path}: all {len(rows)} videos have class id 0, as in V2's published test list, which has no labels and "
            "can't be scored; published numbers are those of the validation list",
        )
    return ()
