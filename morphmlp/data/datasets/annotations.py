"""Makes manifests of annotations in whatever form a data set is passed on. Opens no video.

What the official annotations of a data set are is said by a `DataSet`; lists are the same for all.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from morphmlp.data.datasets.kinetics_formats import (
    KINETICS_LAYOUTS,
    REPLACEMENTS,
    read_kinetics_csv,
    read_kinetics_json,
)
from morphmlp.data.datasets.lines import AnnotatedVideo, Faults, as_table, composed, lines_of, read_content, split_of
from morphmlp.data.datasets.list_formats import FoundRows, read_list
from morphmlp.data.datasets.matching import (
    Annotations,
    LabelledRows,
    below_folder,
    endings_text,
    label_ids,
    match_files,
    names_seen,
    rows_without_repeats,
)
from morphmlp.data.datasets.video_folder import VIDEOS_OR_FRAMES, VideoFolder
from morphmlp.errors import ManifestError

_JSON = re.compile(rb'\s*(\{\s*["}]|\[\s*[{\]])')
_HMDB_SPLIT = re.compile(r".+_test_split[123]")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What is known of a data set, other than lists."""

    num_classes: int
    """Classes where a list of class ids comes without their names."""
    endings: tuple[str, ...]
    """What may follow a path that is written without an extension, the most wanted first."""
    official_json: Callable[[bytes, str | None, Faults], FoundRows]
    """Reads the official JSON: its bytes, the split where something says it, the faults."""
    official_csv: Callable[[Sequence[tuple[int, str]], str | None, Faults], FoundRows | None]
    """Reads the official CSV, in the same way by its lines; gives None where they are no official CSV."""


def read_annotations(
    path: str | Path,
    *,
    videos: str | Path,
    data_set: DataSet | None = None,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    allow_missing: bool = False,
    frame_template: str | None = None,
) -> Annotations:
    """Read a list or official annotations, recognised by what they hold.

    Video ids of a list are its paths from the videos' folder on, without extension where that is enough to tell them
    apart. Those of official annotations are the data set's own. Kinetics is the `data_set` by default, `split` what the
    annotations or their file's name say, `class_names` (in label order) the labels of the file alphabetically, or
    numbers where it has class ids. Videos that aren't there are marked with `allow_missing`, else refused.
    `frame_template` says how frames are named in folders of frames, as `img_%05d.jpg`; by default that is found out
    when they are read.

    Raises:
        ManifestError: All faults with their lines, at most `MAX_FAULTS` of them named.
    """
    path, data_set = Path(path), data_set or KINETICS
    faults, content = Faults(path), read_content(path)
    if _JSON.match(content):
        official: FoundRows | None = data_set.official_json(content, split, faults)
        lines: Sequence[tuple[int, str]] = ()
    else:
        lines = lines_of(content, faults)
        official = data_set.official_csv(lines, split, faults) if lines else None
    folder = VideoFolder(videos, frame_template=frame_template)
    if official is None:
        labelled = _labelled_list(
            read_list(lines, split, faults, endings=data_set.endings, usual_split=split_of(path)),
            class_names,
            folder,
            num_classes=data_set.num_classes,
            faults=faults,
        )
    else:
        labelled = _labelled_official(official, class_names, faults)
    found = match_files(labelled, folder, file=path, faults=faults, allow_missing=allow_missing)
    return replace(found, warnings=(*found.warnings, *_notes_on_places(found, folder)))


def _labelled_official(official: FoundRows, class_names: Sequence[str] | None, faults: Faults) -> LabelledRows:
    rows = rows_without_repeats(official.rows, faults)
    names, order = (class_names, "as given") if class_names is not None else names_seen(rows)
    return LabelledRows(
        rows=rows,
        labels=label_ids(rows, names, faults),
        class_names=names,
        form=official.form,
        class_order=order,
        looked_for=official.looked_for,
    )


def _labelled_list(
    found: FoundRows, class_names: Sequence[str] | None, folder: VideoFolder, *, num_classes: int, faults: Faults
) -> LabelledRows:
    _refuse_hmdb_splits(faults.file, found.rows)
    rows, path_notes = below_folder(found.rows, folder)
    rows, class_notes = _with_class_ids(rows_without_repeats(rows, faults), class_names, faults)
    if class_names is not None:
        names, order = class_names, "as given"
    elif found.has_names:
        names, order = names_seen(rows)
    else:
        names, order = tuple(map(str, range(num_classes))), f"the numbers 0 to {num_classes - 1}"
    return LabelledRows(
        rows=rows,
        labels=label_ids(rows, names, faults),
        class_names=names,
        form=found.form,
        class_order=order,
        looked_for=found.looked_for,
        warnings=(*_unlabelled_note(faults.file, rows), *path_notes, *class_notes),
    )


def _with_class_ids(
    rows: Sequence[AnnotatedVideo], class_names: Sequence[str] | None, faults: Faults
) -> tuple[list[AnnotatedVideo], tuple[str, ...]]:
    """The rows of a list with labels that fit the class names; and what to know of that.

    Ids that count from 1 throughout, as UCF101's do, become those that count from 0. Ids that count in another order
    than the names are faults. Names of classes that are written as folders (`riding_a_bike`) are brought into the form
    of the class names.
    """
    if class_names is None:
        return list(rows), _from_1(rows, None)
    known = {_folded(name): number for number, name in enumerate(class_names)}
    named = [
        replace(row, label=class_names[known[_folded(row.label)]])
        if isinstance(row.label, str) and _folded(row.label) in known
        else row
        for row in rows
    ]
    shifts = {
        place: row.label - known[folder]
        for place, row in enumerate(named)
        if isinstance(row.label, int) and (folder := _folded(_class_folder(row))) in known
    }
    counted = Counter(shifts.values())
    if set(counted) == {1} and all(row.label != 0 for row in named):
        lowered = [replace(row, label=row.label - 1) if isinstance(row.label, int) else row for row in named]
        return lowered, ("class ids of the list count from 1, as its folders show; they are taken from 0 on",)
    # In a list that was cleaned by hand, some videos may lie in another class's folder.
    if counted[0] * 2 >= len(shifts):
        others = len(shifts) - counted[0]
        note = f"{others} of {len(shifts)} videos have another class than the folder in which they lie"
        return named, ((note,) if others else ()) + (() if shifts else _from_1(named, class_names))
    for place, shift in shifts.items():
        if shift:
            row, number = named[place], known[_folded(_class_folder(named[place]))]
            faults.add(
                row.line,
                f"class id {row.label} isn't that of its folder {_class_folder(row)!r}, which is class {number} of "
                "--classes; the list counts classes in another order",
            )
    return named, ()


def _from_1(rows: Sequence[AnnotatedVideo], class_names: Sequence[str] | None) -> tuple[str, ...]:
    """A word of caution where ids look as if they counted from 1."""
    ids = {row.label for row in rows if isinstance(row.label, int)}
    last = len(class_names) if class_names is not None else len(ids)
    if len(ids) < 2 or min(ids) != 1 or max(ids) != last:
        return ()
    advice = "they must count from 0" if class_names else "where they count from 1, as UCF101's do, give --classes"
    return (f"class ids go from 1 to {last}, and no video has 0; {advice}",)


def _class_folder(row: AnnotatedVideo) -> str:
    return row.names[0].rpartition("/")[0].rpartition("/")[2]


def _folded(name: str) -> str:
    """What a class's name and its folder's have in common."""
    return composed(name).casefold().replace("_", " ").strip()


def _refuse_hmdb_splits(path: Path, rows: Sequence[AnnotatedVideo]) -> None:
    if _HMDB_SPLIT.fullmatch(path.stem) and all("/" not in row.names[0] for row in rows):
        raise ManifestError(
            f"{path}: is a split file of HMDB51, whose numbers say train (1), test (2) or unused (0), and whose name "
            "says the class; write a list of `<class>/<video> <class id>` lines for each split"
        )


def _unlabelled_note(path: Path, rows: Sequence[AnnotatedVideo]) -> tuple[str, ...]:
    if len(rows) < 2 or any(row.label != 0 for row in rows):
        return ()
    return (
        f"{path}: all {len(rows)} videos have class id 0, as in V2's published test list, which has no labels and "
        "can't be scored; published numbers are those of the validation list",
    )


def _notes_on_places(found: Annotations, folder: VideoFolder) -> tuple[str, ...]:
    paths = found.manifest.table["path"].to_pylist()
    notes = []
    replacements = tuple(f"{folder.root}/{name}/" for name in REPLACEMENTS)
    if count := sum(path.startswith(replacements) for path in paths):
        notes.append(f"{count} videos are those of {folder.root}/{REPLACEMENTS[0]}")
    if folder.template and not any(path.endswith(folder.template) for path in paths):
        notes.append("--frame-template says nothing here: not one of the videos is a folder of frames")
    return tuple(notes)


def _kinetics_json(content: bytes, split: str | None, faults: Faults) -> FoundRows:
    return _of_kinetics("official Kinetics JSON", read_kinetics_json(content, split, faults))


def _kinetics_csv(lines: Sequence[tuple[int, str]], split: str | None, faults: Faults) -> FoundRows | None:
    table = as_table(lines)
    if table is None or "youtube_id" not in table.header:
        return None
    return _of_kinetics("official Kinetics CSV", read_kinetics_csv(table, split, faults))


def _of_kinetics(form: str, rows: Sequence[AnnotatedVideo]) -> FoundRows:
    looked_for = f"{', '.join(KINETICS_LAYOUTS)} with {endings_text('', VIDEOS_OR_FRAMES)}"
    return FoundRows(form=form, rows=rows, looked_for=looked_for)


KINETICS = DataSet(num_classes=400, endings=VIDEOS_OR_FRAMES, official_json=_kinetics_json, official_csv=_kinetics_csv)
