"""Anyone's own images and label maps, in two folders that are laid out alike, whatever tool wrote them.

Folders train, val and test right below both say the splits; else the pairs are divided by shares. Pairs that have a
split in manifests of the output already keep it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.datasets.lines import SPLIT_WORDS
from morphmlp.data.datasets.scene_pairs import (
    NO_MAP,
    OTHER_LABELS,
    OTHER_SIZE,
    Log,
    Pair,
    PreparedScenes,
    Seen,
    find_pairs,
    look_at_pairs,
    scenes_of,
)
from morphmlp.data.datasets.splits import SplitRule, assign_splits, groups_by_pattern
from morphmlp.data.decoding.stored_frames.image_bytes import Labels
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.errors import ManifestError


@dataclass(frozen=True, kw_only=True)
class MaskFolders:
    """Where images and label maps are, and how names and numbers are meant."""

    images: Path
    maps: Path
    classes: Path
    """Class names in label order."""
    zero_is_ignored: bool = False
    """Class k is stored as k + 1, and 0 is no class."""
    image_suffix: str = ""
    map_suffix: str = ""
    group_pattern: str | None = None
    """What stays together in one split, by names: frames of one video look alike."""


def read_masks(
    folders: MaskFolders,
    rule: SplitRule,
    *,
    kept: Mapping[str, str],
    leaves_out: bool = False,
    log: Log = lambda done, total: None,
) -> PreparedScenes:
    """Find the pairs, look at all of them, divide them, and make the manifests.

    Args:
        folders: What there is.
        rule: How pairs are divided where no folders say their splits.
        kept: Splits by id, of pairs that have one already.
        leaves_out: Pairs that can't be used are left out, and named.
        log: Gets how many pairs have been looked at, and of how many.

    Raises:
        ManifestError: No pairs, an unreadable class list, or pairs that can't be used.
        ConfigError: The pattern of groups is none.
    """
    names = read_class_list(folders.classes)
    if len(names) > IGNORED - folders.zero_is_ignored:
        raise ManifestError(f"{folders.classes}: has {len(names)} classes; a label map of 8 bits can't tell them apart")
    pairs, passed_over, divides = _pairs(folders)
    notes = [f"{kind}: passed over {rest}" for kind, rest in (("images and masks", _counts(passed_over)),) if rest]
    if divides:
        pairs = _divided(pairs, rule, kept, folders.group_pattern)
    seen = look_at_pairs(pairs, shown="upright", log=log)
    _refuse_drawn_foreground(seen, folders.maps)
    labels: Labels = "zero_is_ignored" if folders.zero_is_ignored else "as_stored"
    done = scenes_of(
        seen,
        where=folders.maps,
        class_names=names,
        labels=labels,
        shown="upright",
        leaves_out=leaves_out,
        way_out={
            NO_MAP: "pairs have one name but for the extension, --image-suffix and --mask-suffix say what else differs",
            OTHER_SIZE: "images are shown as their EXIF orientation says",
            OTHER_LABELS: _meant(folders, len(names)),
        },
    )
    return PreparedScenes(manifests=done.manifests, notes=[*notes, *done.notes], left_out=done.left_out)


def _meant(folders: MaskFolders, classes: int) -> str:
    if folders.zero_is_ignored:
        return f"the {classes} classes of {folders.classes} are 1 to {classes}, and 0 and {IGNORED} are ignored"
    return (
        f"the {classes} classes of {folders.classes} are 0 to {classes - 1}, and {IGNORED} is ignored; where 0 is no "
        "class, say --zero-is-ignored, where it's the background, name that first"
    )


def _pairs(folders: MaskFolders) -> tuple[list[Pair], Counter[str], bool]:
    """The pairs, what was passed over, and whether their splits are still to be drawn."""
    for option, folder in (("--images", folders.images), ("--masks", folders.maps)):
        if not folder.is_dir():
            raise ManifestError(f"{option}: {folder}: no such folder")
    suffixes = {"image_suffix": folders.image_suffix, "map_suffix": folders.map_suffix}
    below = {folder: _split_folders(folder) for folder in (folders.images, folders.maps)}
    of_images, of_maps = below.values() if folders.images != folders.maps else (below[folders.images],) * 2
    if not of_images and not of_maps:
        pairs, passed_over = find_pairs(folders.images, folders.maps, split="", **suffixes)
    elif of_images.keys() != of_maps.keys() or "train" not in of_images or "val" not in of_images:
        raise ManifestError(
            f"{folders.images} holds the splits {', '.join(of_images) or 'none'}, {folders.maps} "
            f"{', '.join(of_maps) or 'none'}; both must hold the same ones, train and val among them"
        )
    else:
        pairs, passed_over = [], Counter[str]()
        for split, folder in of_images.items():
            found, rest = find_pairs(folder, of_maps[split], split=split, prefix=f"{split}/", **suffixes)
            pairs += found
            passed_over += rest
    if not any(pair.image is not None for pair in pairs):
        raise ManifestError(f"--images: {folders.images}: holds no images{_ending(folders.image_suffix)}")
    if not any(pair.label_map is not None for pair in pairs):
        raise ManifestError(f"--masks: {folders.maps}: holds no label maps{_ending(folders.map_suffix)}")
    return pairs, passed_over, not of_images


def _ending(suffix: str) -> str:
    return f" whose names end in {suffix!r} before their extension" if suffix else ""


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits, where all folders in this one are such."""
    below = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not below or any(entry.name.lower() not in SPLIT_WORDS for entry in below):
        return {}
    return {SPLIT_WORDS[entry.name.lower()]: entry for entry in below}


def _divided(pairs: Sequence[Pair], rule: SplitRule, kept: Mapping[str, str], pattern: str | None) -> list[Pair]:
    names = [pair.name for pair in pairs]
    groups = names if pattern is None else groups_by_pattern([name.rpartition("/")[2] for name in names], pattern)
    splits = assign_splits(rule, groups=groups, classes=[""] * len(pairs), kept=[kept.get(name) for name in names])
    return [pair._replace(split=split) for pair, split in zip(pairs, splits, strict=True)]


def _refuse_drawn_foreground(seen: Sequence[Seen], maps: Path) -> None:
    """Refuse maps of 0 and 255 alone: drawn in black and white, their foreground would be ignored."""
    used = [each.pixels for each in seen if each.pixels is not None]
    values = np.flatnonzero(sum(used, np.zeros(256, np.int64)))
    if values.tolist() == [0, IGNORED]:
        raise ManifestError(
            f"{maps}: its label maps hold 0 and {IGNORED} alone, and {IGNORED} is ignored; a foreground that is drawn "
            "in white must be written as 1"
        )


def _counts(passed_over: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(passed_over.items()))
