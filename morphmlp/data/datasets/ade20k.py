"""ADE20K's scene parsing benchmark, ADEChallengeData2016, as its archive unpacks.

DIR/images/{training,validation}/ADE_train_00000001.jpg ...         20,210 and 2,000
DIR/annotations/{training,validation}/ADE_train_00000001.png ...    8 bits, 0 for other objects, class k as k + 1
DIR/objectInfo150.txt                                               the classes

Names of the classes are those of objectInfo150.txt, next to the data or as the benchmark's development kit has it
(github.com/CSAILVision/sceneparsing; here `ade20k_classes.txt`, without the blanks at the end of some names).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from morphmlp.data.datasets.scene_pairs import (
    BAD_MAP,
    OTHER_LABELS,
    Log,
    Pair,
    PreparedScenes,
    Seen,
    find_pairs,
    look_at_pairs,
    scenes_of,
)
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.errors import ManifestError

Maps = Literal["as-released", "reduced"]
"""As released a map has 0 for other objects and class k as k + 1; reduced maps have class k as k, and 255."""
OFFICIAL = {"train": 20_210, "val": 2_000}
"""Pairs of the benchmark."""
INFO = "objectInfo150.txt"
FOLDERS = {"train": "training", "val": "validation"}
NAME = "ADEChallengeData2016"
_ROW = re.compile(r"\s*(\d+)\s*\t[^\t]*\t[^\t]*\t[^\t]*\t(.*\S)\s*")


def read_ade20k(
    root: Path, *, maps: Maps = "as-released", leaves_out: bool = False, log: Log = lambda done, total: None
) -> PreparedScenes:
    """Find the pairs, look at all of them, and make the manifests.

    Args:
        root: The folder that holds `images` and `annotations`, or the one above.
        maps: What the label maps are; the data are held against it.
        leaves_out: Pairs that can't be used are left out, and named.
        log: Gets how many pairs have been looked at, and of how many.

    Raises:
        ManifestError: It's another data set or download, maps are stored otherwise, or pairs can't be used.
    """
    root = _root(root)
    names, notes = class_names(root)
    pairs, more_notes = _pairs(root)
    seen = look_at_pairs(pairs, shown="as stored", log=log)
    more_notes += _require_maps(seen, maps, len(names), root)
    if maps == "as-released":
        seen = [_without_255(each) for each in seen]
    done = scenes_of(
        seen,
        where=root,
        class_names=names,
        labels="zero_is_ignored" if maps == "as-released" else "as_stored",
        shown="as stored",
        leaves_out=leaves_out,
        way_out={
            OTHER_LABELS: f"the {len(names)} classes are {_values(maps, len(names))}",
            BAD_MAP: "get the archive again where files are damaged",
        },
    )
    counts = [
        f"{split}: {len(manifest):,} images, the benchmark has {OFFICIAL[split]:,}"
        for split, manifest in done.manifests.items()
        if len(manifest) != OFFICIAL[split]
    ]
    return PreparedScenes(
        manifests=done.manifests, notes=[*notes, *more_notes, *counts, *done.notes], left_out=done.left_out
    )


def _root(root: Path) -> Path:
    """The folder that holds images and annotations.

    Raises:
        ManifestError: There is none, in words for what is there instead.
    """
    if root.is_file():
        hint = f"unpack it (`unzip {root}`): images are read where they lie" if root.suffix == ".zip" else "name one"
        raise ManifestError(f"{root}: is a file and no folder; {hint}")
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder")
    for place in (root, root / NAME):
        if (place / "images").is_dir() and (place / "annotations").is_dir():
            return place
    here = sorted(entry.name for entry in root.iterdir())
    archives = [name for name in here if name.endswith(".zip")]
    if _is_full(root):
        what = (
            "is the full ADE20K download, whose maps have colours and thousands of classes; the benchmark's 150 are in "
            f"{NAME}.zip (data.csail.mit.edu/places/ADEchallenge)"
        )
    elif archives:
        what = f"holds {archives[0]}; unpack it: images are read where they lie"
    else:
        what = f"holds {', '.join(here[:5]) or 'nothing'}, not the folders images and annotations of {NAME}"
    raise ManifestError(f"{root}: {what}")


def _is_full(root: Path) -> bool:
    """Whether a folder is the full download, of 2016 or 2021, or right above it."""
    places = [root, *(entry for entry in root.iterdir() if entry.is_dir())]
    return any(
        place.name.startswith("ADE20K_20") or (place / "index_ade20k.mat").exists() or (place / "images/ADE").is_dir()
        for place in places
    ) or any(place.name.endswith("_seg.png") for place in (root / "images").glob("training/*/*/*"))


def class_names(root: Path) -> tuple[tuple[str, ...], list[str]]:
    """Names in label order, from the data or the published list; and what is to be said of them.

    Raises:
        ManifestError: The file next to the data isn't such a list.
    """
    published = tuple(Path(__file__).with_name("ade20k_classes.txt").read_text(encoding="utf-8").splitlines())
    path = root / INFO
    if not path.exists():
        return published, [f"{INFO} isn't there: names of the {len(published)} classes are those of the published list"]
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [_ROW.fullmatch(line) for line in lines[1:] if line.strip()]
    faults = [f"line {number}" for number, row in enumerate(rows, 2) if row is None or int(row[1]) != number - 1]
    if faults or not rows:
        raise ManifestError(
            f"{path}: {', '.join(faults[:3]) or 'holds no class'}: must be Idx, Ratio, Train, Val, Name with tabs "
            "between them, Idx from 1 on; get the file again, or remove it for the published names"
        )
    names = tuple(row[2] for row in rows if row is not None)
    differs = (
        [] if names == published else [f"{INFO} has {len(names)} classes other than the published {len(published)}"]
    )
    return names, differs


def _pairs(root: Path) -> tuple[list[Pair], list[str]]:
    pairs: list[Pair] = []
    notes: list[str] = []
    for split, name in FOLDERS.items():
        folders = [root / kind / name for kind in ("images", "annotations")]
        absent = [folder for folder in folders if not folder.is_dir()]
        if len(absent) == 1:
            raise ManifestError(f"{absent[0]}: no such folder; {folders[1 - folders.index(absent[0])]} is there")
        if absent:
            notes.append(f"{split}: isn't there; {folders[0]} and {folders[1]} would hold it")
            continue
        found, passed_over = find_pairs(*folders, split=split)
        if _is_full(root):
            raise ManifestError(f"{root}: is the full ADE20K download; the benchmark's 150 classes are in {NAME}.zip")
        if not found:
            raise ManifestError(f"{folders[0]}: holds no images")
        pairs += found
        if passed_over:
            rest = ", ".join(f"{count} {kind}" for kind, count in sorted(passed_over.items()))
            notes.append(f"{split}: passed over {rest}")
    if not pairs:
        raise ManifestError("\n".join(f"{root}: {note}" for note in notes))
    return pairs, notes


def _without_255(seen: Seen) -> Seen:
    """A pair whose released map has the value of reduced ones can't be used: it would be ignored."""
    if seen.pixels is None or not seen.pixels[IGNORED]:
        return seen
    return seen._replace(fault=OTHER_LABELS, words=f"{seen.pair.name} ({IGNORED})")


def _require_maps(seen: Sequence[Seen], maps: Maps, classes: int, root: Path) -> list[str]:
    """Hold the maps against what they are said to be: reduced twice, every class would be its neighbour.

    Raises:
        ManifestError: They are the other kind, or of both.
    """
    used = [each for each in seen if each.pixels is not None]
    # Only a reduced map has 255, only a released one has the greatest class.
    evidence: Mapping[Maps, list[Seen]] = {
        "reduced": [each for each in used if each.pixels is not None and each.pixels[IGNORED]],
        "as-released": [each for each in used if each.pixels is not None and each.pixels[classes]],
    }
    other: Maps = "reduced" if maps == "as-released" else "as-released"
    if not evidence[other]:
        doubt = f"no label map has {IGNORED} or {classes}, which would show that they are {maps}; they are taken so"
        return [] if evidence[maps] or not used else [doubt]
    if len(evidence[other]) < len(used) / 100 and evidence[maps]:
        return []  # a few odd ones are named as maps with labels outside the classes
    told = (
        f"{len(evidence['reduced']):,} of {len(used):,} label maps have the value {IGNORED} of reduced ones "
        f"({_examples(evidence['reduced'])}), {len(evidence['as-released']):,} the value {classes} of released ones "
        f"({_examples(evidence['as-released'])})"
    )
    if evidence[maps]:
        raise ManifestError(f"{root}: {told}; keep one kind, classes of the other are shifted by one")
    greatest = max(
        int(np.flatnonzero(each.pixels[:IGNORED]).max(initial=0)) for each in used if each.pixels is not None
    )
    raise ManifestError(
        f"{root}: {told}; the greatest other is {greatest}: they are {other}, and read as {maps} ones every class "
        f"would be its neighbour; say --maps {other}"
    )


def _examples(seen: Sequence[Seen]) -> str:
    return f"as {seen[0].pair.name}" if seen else "none"


def _values(maps: Maps, classes: int) -> str:
    if maps == "as-released":
        return f"1 to {classes}, and 0 is ignored"
    return f"0 to {classes - 1} in reduced maps, and {IGNORED} is ignored"
