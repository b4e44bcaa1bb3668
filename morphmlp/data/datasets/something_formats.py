"""The official annotations of Something-Something V1 and V2, CSV and JSON.

Knows lines and their faults; asks nothing of the disk.
"""

import json
from collections.abc import Mapping, Sequence

from morphmlp.data.datasets.lines import AnnotatedVideo, Faults, json_objects, json_text, require_split

OFFICIAL_CSV = "<video id>;<template>"
UNLABELLED = "it's the test list, which comes without labels and can't be scored; take the validation list"


def is_something_csv(lines: Sequence[tuple[int, str]]) -> bool:
    """Whether the lines are those of the official CSV: what follows the first semicolon is no number."""
    if not lines:
        return False
    _, semicolon, template = lines[0][1].partition(";")
    return bool(semicolon) and not template.strip(' "').isdecimal()


def without_brackets(template: str) -> str:
    """`Pushing [something]` as `Pushing something`: the form in which label files name a class."""
    return template.replace("[", "").replace("]", "").strip()


def read_something_csv(
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


def read_something_json(
    content: bytes, split: str | None, faults: Faults, *, endings: tuple[str, ...]
) -> list[AnnotatedVideo]:
    """The videos of the official JSON; `endings` are those of the files that it speaks of."""
    rows: list[AnnotatedVideo] = []
    if (text := json_text(content, faults)) is None:
        return rows
    try:
        objects = [(line, video) for line, _, video in json_objects(text, named=False)]
    except json.JSONDecodeError as error:
        faults.add(error.lineno, f"not a JSON list of objects: {error.msg} at column {error.colno}")
        return rows
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
