"""Whether the class ids of a list are those of the class names: folders tell, where they are named after classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from morphmlp.data.datasets.lines import AnnotatedVideo, Faults, composed


def with_class_ids(
    rows: Sequence[AnnotatedVideo], class_names: Sequence[str] | None, faults: Faults
) -> tuple[list[AnnotatedVideo], tuple[str, ...]]:
    """The rows of a list with labels that fit the class names; and what to know of that.

    Ids that count from 1 throughout, as UCF101's do, become those that count from 0. Ids that count in another order
    than the names are faults. Names of classes that are written as folders (`riding_a_bike`) are brought into the form
    of the class names.

    Args:
        rows: The videos.
        class_names: Names in label order; None where there are none.
        faults: Takes what is wrong, by line.
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
    if counted[0] * 2 >= len(
        shifts
    ):  # in a list that was cleaned by hand, some videos may lie in another class's folder
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
