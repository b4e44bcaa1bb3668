"""Makes manifests of the annotations of Something-Something V1 and V2. Opens no video.

The 174 classes are templates, and their ids are the templates' alphabetical order in both versions. So a label file
with one template per line is put in that order, whatever its own: that of V1 has another, and so has a list of V2's
templates that goes around.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from morphmlp.data.datasets.annotations import DataSet
from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.datasets.lines import AnnotatedVideo, Faults, json_objects, require_split, split_of
from morphmlp.data.datasets.list_formats import FoundRows, has_list_header
from morphmlp.data.datasets.matching import endings_text
from morphmlp.data.datasets.video_folder import EXTENSIONS, FRAMES, VIDEOS_OR_FRAMES

Version = Literal["ssv1", "ssv2"]
NUM_CLASSES = 174
_WEBM_FIRST = (".webm", *(ending for ending in VIDEOS_OR_FRAMES if ending != ".webm"))
"""Video files first, as V2 is distributed."""
OFFICIAL_CSV = "<video id>;<template>"
UNLABELLED = "it's the test list, which comes without labels and can't be scored; take the validation list"


def read_templates(path: str | Path) -> tuple[str, ...]:
    """The classes in label order, from an official label file or a manifest.

    The label file of V1 has one template per line and no ids, so the templates are sorted; that of V2 (JSON) and
    `template<TAB>id` lines say the ids. Brackets are left out. Faults are as for `read_class_list`.
    """
    return read_class_list(path, unnumbered="alphabetical", clean=without_brackets)


def _is_something_csv(lines: Sequence[tuple[int, str]]) -> bool:
    """Whether the lines are those of the official CSV: what follows the first semicolon is no number."""
    if not lines:
        return False
    _, semicolon, template = lines[0][1].partition(";")
    return bool(semicolon) and not template.strip(' "').isdecimal()


def without_brackets(template: str) -> str:
    """`Pushing [something]` as `Pushing something`: the form in which label files name a class."""
    return template.replace("[", "").replace("]", "").strip()


def _read_something_csv(
    lines: Sequence[tuple[int, str]], split: str | None, faults: Faults, *, endings: tuple[str, ...]
) -> list[AnnotatedVideo]:
    """The videos of the official CSV; `endings` are those of the files that it speaks of."""
    rows = []
    require_split(split, lines[0][0], faults)
    for line, text in lines:
        # Templates may hold commas and are not quoted; the first semicolon ends the id.
        video_id, semicolon, template = text.partition(";")
        video_id, template = video_id.strip(), without_brackets(template.strip().strip('"'))
        if video_id and template:
            rows.append(AnnotatedVideo(line, video_id, template, split or "", (video_id,), endings))
        elif semicolon and video_id:
            faults.add(line, f"video {video_id} has no template; {UNLABELLED}")
        else:
            faults.add(line, f"unreadable line {text[:120]!r}; it must be `{OFFICIAL_CSV}`")
    return rows


def _read_something_json(
    content: bytes, split: str | None, faults: Faults, *, endings: tuple[str, ...]
) -> list[AnnotatedVideo]:
    """The videos of the official JSON; `endings` are those of the files that it speaks of."""
    rows: list[AnnotatedVideo] = []
    objects = [(line, video) for line, _, video in json_objects(content, faults, named=False, what="list of objects")]
    if objects and not any(_field(video, "template") for _, video in objects):
        faults.add(objects[0][0], f"not one of its {len(objects)} videos has a template: {UNLABELLED}")
        return rows
    if objects:
        require_split(split, objects[0][0], faults)
    for line, video in objects:
        video_id, template = _field(video, "id"), _field(video, "template")
        if video_id and template:
            rows.append(AnnotatedVideo(line, video_id, without_brackets(template), split or "", (video_id,), endings))
        else:
            lacking = " and ".join(name for name in ("id", "template") if not _field(video, name))
            faults.add(line, f"video {video_id or '?'} has no {lacking}; each object must have both, as text")
    return rows


def _field(video: Mapping[str, object], name: str) -> str:
    """A field's text, or nothing; ids are text in the official files and numbers in some copies of them."""
    value = video.get(name)
    return value.strip() if isinstance(value, str) else ""


def _data_set(endings: tuple[str, ...], official_endings: tuple[str, ...]) -> DataSet:
    looked_for = endings_text("<id>", official_endings)

    def official_json(content: bytes, split: str | None, faults: Faults) -> FoundRows:
        rows = _read_something_json(content, split or split_of(faults.file), faults, endings=official_endings)
        return FoundRows(form="official JSON", rows=rows, looked_for=looked_for)

    def official_csv(lines: Sequence[tuple[int, str]], split: str | None, faults: Faults) -> FoundRows | None:
        if not _is_something_csv(lines) or has_list_header(lines):
            return None
        rows = _read_something_csv(lines, split or split_of(faults.file), faults, endings=official_endings)
        return FoundRows(form="official CSV", rows=rows, looked_for=looked_for)

    return DataSet(num_classes=NUM_CLASSES, endings=endings, official_json=official_json, official_csv=official_csv)


SOMETHING: Mapping[Version, DataSet] = {
    "ssv1": _data_set((*FRAMES, *EXTENSIONS), official_endings=FRAMES),
    "ssv2": _data_set(_WEBM_FIRST, official_endings=_WEBM_FIRST),
}
"""What `read_annotations` must know of them. Videos of official annotations are folders of frames or packed frames
(`<id>.zip`); for V2 they are `<id>.webm`, or the same video under another extension, first."""
