"""The text formats of Something-Something V1 and V2: frame lists, the official CSV and the official JSON.

Told apart by their content. Knows lines and their faults; asks nothing of the disk.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from morphmlp.data.annotation_formats import (
    AnnotatedVideo,
    Faults,
    lines_of,
    read_content,
    require_split,
    split_of,
)

FRAME_LIST = "<video id> <frame count> <class id>"
OFFICIAL_CSV = "<video id>;<template>"
UNLABELLED = "it's the test list, which comes without labels and can't be scored; take the validation list"


@dataclass(frozen=True)
class SomethingRows:
    """The videos of one annotation file.

    Attributes:
        form: What the file is, in words.
        rows: Its videos; labels are class ids in a frame list and templates without brackets elsewhere.
        has_templates: Whether labels are templates.
    """

    form: str
    rows: Sequence[AnnotatedVideo]
    has_templates: bool


def read_something_rows(path: Path, split: str | None, faults: Faults) -> SomethingRows:
    """The videos of a frame list, the official CSV or the official JSON.

    Args:
        path: The annotations.
        split: train, val or test; by default what the file's name says.
        faults: Takes what is wrong, by line.

    Raises:
        ManifestError: The file can't be read.
    """
    content = read_content(path)
    split = split or split_of(path)
    if content.lstrip().startswith((b"[", b"{")):
        return SomethingRows("official JSON", _read_json(content, split, faults), has_templates=True)
    lines = lines_of(content, faults)
    if lines:
        require_split(split, lines[0][0], faults)
    if lines and ";" in lines[0][1]:
        return SomethingRows("official CSV", _read_csv(lines, split or "", faults), has_templates=True)
    return SomethingRows("frame list", _read_frame_list(lines, split or "", faults), has_templates=False)


def without_brackets(template: str) -> str:
    """`Pushing [something]` as `Pushing something`: the form in which label files name a class."""
    return template.replace("[", "").replace("]", "").strip()


def _read_frame_list(lines: Sequence[tuple[int, str]], split: str, faults: Faults) -> list[AnnotatedVideo]:
    rows = []
    for line, text in lines:
        fields = text.split()
        if len(fields) != 3:
            faults.add(line, f"unreadable line {text[:120]!r}; it must be `{FRAME_LIST}`")
            continue
        video_id, count, label = fields
        good_count = count.isdecimal() and int(count) > 0
        good_label = label.removeprefix("-").isdecimal()
        if not good_count:
            faults.add(line, f"frame count {count!r} of video {video_id} must be a whole number above 0")
        if not good_label:
            faults.add(line, f"class id {label!r} of video {video_id} must be a whole number")
        if good_count and good_label:
            rows.append(AnnotatedVideo(line, video_id, int(label), split, (video_id,), int(count)))
    return rows


def _read_csv(lines: Sequence[tuple[int, str]], split: str, faults: Faults) -> list[AnnotatedVideo]:
    rows = []
    for line, text in lines:
        # Templates may hold commas and are not quoted; the first semicolon ends the id.
        video_id, semicolon, template = text.partition(";")
        video_id, template = video_id.strip(), without_brackets(template.strip().strip('"'))
        if video_id and template:
            rows.append(AnnotatedVideo(line, video_id, template, split, (video_id,)))
        elif semicolon and video_id:
            faults.add(line, f"video {video_id} has no template; {UNLABELLED}")
        else:
            faults.add(line, f"unreadable line {text[:120]!r}; it must be `{OFFICIAL_CSV}`")
    return rows


def _read_json(content: bytes, split: str | None, faults: Faults) -> list[AnnotatedVideo]:
    rows: list[AnnotatedVideo] = []
    try:
        objects = list(_objects(content.decode()))
    except UnicodeDecodeError as error:
        faults.add(content.count(b"\n", 0, error.start) + 1, "unreadable line; it must be UTF-8 text")
        return rows
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
            rows.append(AnnotatedVideo(line, video_id, without_brackets(template), split or "", (video_id,)))
        else:
            lacking = " and ".join(name for name in ("id", "template") if not _field(video, name))
            faults.add(line, f"video {video_id or '?'} has no {lacking}; each object must have both, as text")
    return rows


def _field(video: Mapping[str, object], name: str) -> str:
    """A field's text, or nothing; ids are text in the official files and numbers in some copies of them."""
    value = video.get(name)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _objects(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The objects of a JSON list, each with the line on which it begins, which `json.load` doesn't tell.

    Raises:
        json.JSONDecodeError: It's something else.
    """
    decoder = json.JSONDecoder()
    place = _after_space(text, 0)
    if text[place] != "[":
        raise json.JSONDecodeError("it begins with an object", text, place)
    line, counted = 1, 0
    place = _after_space(text, place + 1)
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        video, end = decoder.raw_decode(text, place)
        if not isinstance(video, dict):
            raise json.JSONDecodeError("this is not an object", text, place)
        yield line, video
        place = _after_space(text, end)
        if text[place : place + 1] == ",":
            place = _after_space(text, place + 1)
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
    if (rest := _after_space(text, place + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _after_space(text: str, place: int) -> int:
    """The place of the next character that isn't white space, or the text's length."""
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
