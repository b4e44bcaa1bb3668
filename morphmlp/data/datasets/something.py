"""Makes manifests of the annotations of Something-Something V1 and V2. Opens no video.

The 174 classes are templates, and their ids are the templates' alphabetical order in both versions. So a label file
with one template per line is put in that order, whatever its own: that of V1 has another, and so has a list of V2's
templates that goes around.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from morphmlp.data.datasets.annotations import DataSet, OfficialRows, read_annotations
from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.datasets.lines import Faults, split_of
from morphmlp.data.datasets.list_formats import has_list_header
from morphmlp.data.datasets.matching import Annotations, endings_text
from morphmlp.data.datasets.something_formats import (
    is_something_csv,
    read_something_csv,
    read_something_json,
    without_brackets,
)
from morphmlp.data.datasets.video_folder import EXTENSIONS, FRAMES, VIDEOS_OR_FRAMES

Version = Literal["ssv1", "ssv2"]
NUM_CLASSES = 174
_WEBM_FIRST = (".webm", *(ending for ending in VIDEOS_OR_FRAMES if ending != ".webm"))
"""Video files first, as V2 is distributed."""


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
    frame_template: str | None = None,
) -> Annotations:
    """Read a list, the official CSV or the official JSON, told apart by what they hold.

    Videos of official annotations are folders of frames or packed frames (`<id>.zip`); for V2 they are `<id>.webm`, or
    the same video under another extension, first. For the rest see `read_annotations`.

    Args:
        path: The annotations.
        version: Of the data set.
        videos: Folder that holds the videos.
        split: train, val or test; by default what the file's name says.
        class_names: Templates in label order, see `read_templates`; by default those of this file in alphabetical
            order, or the numbers 0 to 173 for a list of class ids.
        allow_missing: Keep videos that aren't there, marked, instead of refusing.
        frame_template: How frames are named in folders of frames, where that isn't to be found out.

    Raises:
        ManifestError: All faults with their lines, at most `MAX_FAULTS` of them named.
    """
    return read_annotations(
        path,
        videos=videos,
        data_set=_DATA_SETS[version],
        split=split,
        class_names=class_names,
        allow_missing=allow_missing,
        frame_template=frame_template,
    )


def _data_set(endings: tuple[str, ...], official_endings: tuple[str, ...]) -> DataSet:
    looked_for = endings_text("<id>", official_endings)

    def official_json(content: bytes, split: str | None, faults: Faults) -> OfficialRows:
        rows = read_something_json(content, split or split_of(faults.file), faults, endings=official_endings)
        return OfficialRows(form="official JSON", rows=rows, looked_for=looked_for)

    def official_csv(lines: Sequence[tuple[int, str]], split: str | None, faults: Faults) -> OfficialRows | None:
        if not is_something_csv(lines) or has_list_header(lines):
            return None
        rows = read_something_csv(lines, split or split_of(faults.file), faults, endings=official_endings)
        return OfficialRows(form="official CSV", rows=rows, looked_for=looked_for)

    return DataSet(num_classes=NUM_CLASSES, endings=endings, official_json=official_json, official_csv=official_csv)


_DATA_SETS = {
    "ssv1": _data_set((*FRAMES, *EXTENSIONS), official_endings=FRAMES),
    "ssv2": _data_set(_WEBM_FIRST, official_endings=_WEBM_FIRST),
}
