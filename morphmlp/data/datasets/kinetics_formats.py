"""The official annotations of Kinetics, CSV and JSON, and where copies of the data set keep their videos.

The disk isn't looked at.
"""

import re
from collections.abc import Mapping, Sequence

from morphmlp.data.datasets.lines import SPLIT_WORDS, AnnotatedVideo, Faults, Table, json_objects
from morphmlp.data.datasets.video_folder import VIDEOS_OR_FRAMES
from morphmlp.data.manifest import SPLITS

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
REPLACEMENTS = ("replacement", "replacement/replacement_for_corrupted_k400", "replacement_for_corrupted_k400")
"""Folders in which the CVDF's copy keeps sound files in place of its corrupt ones, which stay where they were: so these
come first."""
KINETICS_LAYOUTS = (
    "replacement/<id>_<start>_<end>",
    "<split>/<label>/<id>_<start>_<end>",
    "<label>/<id>_<start>_<end>",
    "<split>/<id>_<start>_<end>",
    "<id>_<start>_<end>",
    "<id>",
)
"""Where a video is looked for below the videos' folder, in this order, as a file, a folder of frames or packed frames.
Start and end have six digits; the label's spaces may be underscores."""
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]*)?")
UNLABELLED = "the list has no labels and can't be scored; take the validation list"


def read_kinetics_csv(table: Table, split: str | None, faults: Faults) -> list[AnnotatedVideo]:
    """The videos of the official CSV; further columns don't matter."""
    if lacking := [name for name in KINETICS_COLUMNS if name not in table.header and not (name == "split" and split)]:
        faults.add(table.line, f"the header has no {', '.join(lacking)}; it must be {','.join(KINETICS_COLUMNS)}")
        return []
    found = (_kinetics_video(line, cells, split, faults) for line, cells in table.rows(faults))
    return [row for row in found if row is not None]


def read_kinetics_json(content: bytes, split: str | None, faults: Faults) -> list[AnnotatedVideo]:
    """The videos of the official JSON, `{<youtube id>: {annotations: {label, segment}, subset}}`."""
    rows: list[AnnotatedVideo] = []
    videos = json_objects(content, faults, named=True, what="object of Kinetics' videos")
    if videos and not any("annotations" in video or "subset" in video for _, _, video in videos):
        form = "{<youtube id>: {annotations: {label, segment}, subset}}"
        faults.add(videos[0][0], f"not the official JSON of Kinetics, which is {form}")
        return rows
    if videos and not any("annotations" in video for _, _, video in videos):
        faults.add(videos[0][0], f"not one of its {len(videos)} videos has annotations: {UNLABELLED}")
        return rows
    for line, name, video in videos:
        if (row := _kinetics_video(line, _json_cells(name, video), split, faults)) is not None:
            rows.append(row)
    return rows


def _json_cells(name: str, video: Mapping[str, object]) -> dict[str, str]:
    """An entry of the JSON with the columns of the CSV."""
    annotations = video.get("annotations")
    known: Mapping[str, object] = annotations if isinstance(annotations, dict) else {}
    segment = known.get("segment")
    start, end = segment if isinstance(segment, list) and len(segment) == 2 else ("", "")
    cells = {"label": str(known.get("label", "")), "youtube_id": name, "time_start": str(start), "time_end": str(end)}
    return cells | ({"split": str(video["subset"])} if "subset" in video else {})


def _kinetics_video(line: int, cells: Mapping[str, str], split: str | None, faults: Faults) -> AnnotatedVideo | None:
    label, youtube_id, said = cells["label"], cells["youtube_id"], cells.get("split", split or "")
    times = cells["time_start"], cells["time_end"]
    before = len(faults)
    if not label or not youtube_id:
        faults.add(line, f"unreadable line: label is {label!r} and youtube_id {youtube_id!r}; both must be given")
    if not all(map(_SECONDS.fullmatch, times)):
        faults.add(line, f"unreadable line: time_start is {times[0]!r} and time_end {times[1]!r}; both must be seconds")
    if said not in SPLIT_WORDS:
        faults.add(line, f"split is {said!r}; it must be one of {', '.join(SPLITS)}")
    if len(faults) > before:
        return None
    name = f"{youtube_id}_{int(float(times[0])):06d}_{int(float(times[1])):06d}"
    return AnnotatedVideo(
        line,
        name,
        label,
        split or SPLIT_WORDS[said],
        names=_places(name, youtube_id, label, dict.fromkeys((said, SPLIT_WORDS[said]))),
        endings=VIDEOS_OR_FRAMES,
    )


def _places(name: str, youtube_id: str, label: str, splits: Sequence[str] | Mapping[str, object]) -> tuple[str, ...]:
    """The paths of `KINETICS_LAYOUTS` for one video, without extension."""
    folders = dict.fromkeys((label, label.replace(" ", "_")))
    return (
        *(f"{folder}/{name}" for folder in REPLACEMENTS),
        *(f"{split}/{folder}/{name}" for split in splits for folder in folders),
        *(f"{folder}/{name}" for folder in folders),
        *(f"{split}/{name}" for split in splits),
        name,
        youtube_id,
    )
