"""Manifests of ImageNet-1K, or of images in one of its layouts, from whatever form they are held in.

A label is the rank of its class among the sorted class names, which for ImageNet are WordNet ids. An image's id is
`<class>/<name without extension>` in every form, so that the same images make the same stream whatever holds them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.datasets.imagenet.devkit import ARCHIVE, FOLDER, Devkit, read_devkit
from morphmlp.data.datasets.imagenet.folders import images_in_folder
from morphmlp.data.datasets.imagenet.found import WNID, FoundImage, image_cells, stem_of
from morphmlp.data.datasets.imagenet.parquet import class_names_in, images_in_parquet
from morphmlp.data.datasets.imagenet.tars import images_in_tar
from morphmlp.data.datasets.video_folder import require_text
from morphmlp.data.manifest import Manifest, is_manifest, manifest_from_rows
from morphmlp.errors import ManifestError

OFFICIAL = {"train": 1_281_167, "val": 50_000}
"""Images of ImageNet-1K."""
OFFICIAL_CLASSES = 1000
_NAMES = {
    "train": re.compile(r"(.*[^a-z])?train(?!_t3)([^a-z].*)?", re.IGNORECASE),  # _t3: the dogs of task 3
    "val": re.compile(r"(.*[^a-z])?val(idation)?([^a-z].*)?", re.IGNORECASE),
}
_BELOW = ("", "data", "ILSVRC/Data/CLS-LOC")
"""Folders in which the splits may lie."""
_READERS: Mapping[str, Callable[[Path], Iterator[FoundImage]]] = {".tar": images_in_tar, ".parquet": images_in_parquet}
_VALIDATION = re.compile(r"ILSVRC2012_val_([0-9]{8})")
_SHOWN = 3

Log = Callable[[str, int], None]
"""Gets how far it is: the split, and the images found so far."""


@dataclass(frozen=True, kw_only=True)
class ImageSources:
    """Where the images are."""

    splits: Mapping[str, Path]
    """Of `train` and `val`: a folder, an archive, or a shard."""
    devkit: Path | None = None
    classes: Path | None = None
    """Class names in label order, where not the sorted ones are meant, or shards don't name them."""


@dataclass(frozen=True, kw_only=True)
class PreparedImages:
    """The manifests by split, and what is to be said of them."""

    manifests: Mapping[str, Manifest]
    notes: Sequence[str] = field(default=())


def find_sources(root: Path) -> ImageSources:
    """The splits in a folder, by their names, and the devkit next to them.

    Raises:
        ManifestError: There is none, or one in several forms.
    """
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder")
    splits: dict[str, Path] = {}
    for split, name in _NAMES.items():
        places = [
            entry
            for below in _BELOW
            if (root / below).is_dir()
            for entry in sorted((root / below).iterdir())
            if name.fullmatch(entry.stem) and (entry.is_dir() or _is_shard(entry))
        ]
        kinds = sorted({"folder" if place.is_dir() else f"{place.suffix} in {place.parent}" for place in places})
        if len(kinds) > 1 or (kinds == ["folder"] and len(places) > 1):
            raise ManifestError(
                f"{root}: holds {split} more than once: {', '.join(place.name for place in places[:_SHOWN])}; say "
                f"which is meant with --{split} PATH"
            )
        if places:  # several files of one kind are shards: their folder is read for the split's
            splits[split] = places[0] if len(places) == 1 else places[0].parent
    if not splits:
        raise ManifestError(
            f"{root}: holds neither train nor val: folders of class folders, ILSVRC2012_img_train.tar and "
            "ILSVRC2012_img_val.tar, or shards named after their split (.tar, .parquet); or name them: --train, --val"
        )
    kits = [place for place in (root / ARCHIVE, root / FOLDER) if place.exists()]
    return ImageSources(splits=splits, devkit=kits[0] if kits else None)


def read_images(sources: ImageSources, *, log: Log = lambda split, count: None) -> PreparedImages:
    """Find all images and their labels; nothing is unpacked, and no picture is decoded.

    Raises:
        ManifestError: What can't be used, in one line each.
    """
    devkit = None if sources.devkit is None else read_devkit(sources.devkit)
    passed_over: dict[str, Counter[str]] = defaultdict(Counter)
    found = {}
    for split, place in sources.splits.items():
        images = []
        for image in _images(place, split, passed_over[split]):
            images.append(image)
            if len(images) % 1000 == 0:
                log(split, len(images))
        log(split, len(images))
        if not images:
            raise ManifestError(f"{place}: holds no images for {split}")
        found[split] = _with_devkit(images, devkit, place)
    names = _class_names(found, sources, devkit)
    numbers = {key_of(name): label for label, name in enumerate(names)}
    manifests = {
        split: _manifest(images, split, names, numbers, sources.splits[split]) for split, images in found.items()
    }
    notes = [
        f"{split}: passed over {', '.join(f'{count} {kind}' for kind, count in sorted(rest.items()))}"
        for split, rest in passed_over.items()
        if rest
    ]
    return PreparedImages(manifests=manifests, notes=[*notes, *_differences(manifests, names)])


def key_of(class_name: str) -> str:
    """What a class is called in ids and folders: its WordNet id, or all of its name where it has none."""
    first = class_name.partition(" ")[0]
    return first if WNID.fullmatch(first) else class_name


def _images(place: Path, split: str, passed_over: Counter[str]) -> Iterator[FoundImage]:
    """The images of a split in whatever form."""
    require_text(str(place.absolute()), f"--{split}")
    if not place.is_dir():
        reader = _READERS.get(place.suffix)
        if reader is None or not place.exists():
            what = "is neither a folder nor a .tar or .parquet file" if place.exists() else "no such file or folder"
            raise ManifestError(f"{place}: {what} (--{split})")
        _require_all_shards([place])
        yield from reader(place.absolute())
        return
    shards = sorted(filter(_is_shard, place.iterdir()))
    of_split = [shard for shard in shards if _NAMES[split].fullmatch(shard.stem)]
    other = [shard for shard in shards if any(name.fullmatch(shard.stem) for name in _NAMES.values())]
    shards = of_split or [shard for shard in shards if shard not in other]
    kinds = {shard.suffix for shard in shards}
    if len(kinds) > 1:
        raise ManifestError(
            f"{place}: holds {' and '.join(sorted(kinds))} files of {split}; keep one kind, or --{split}"
        )
    _require_all_shards(shards)
    for shard in shards:
        yield from _READERS[shard.suffix](shard.absolute())
    if not shards:
        yield from images_in_folder(place, passed_over=passed_over)


def _is_shard(path: Path) -> bool:
    """Whether a file may hold images: manifests, which are Parquet too, may lie next to them."""
    return path.suffix in _READERS and path.is_file() and not (path.suffix == ".parquet" and is_manifest(path))


def _require_all_shards(shards: Sequence[Path]) -> None:
    """Refuse shards of which some are missing: the hub's names say how many there are (`train-00000-of-00294`)."""
    for shard in shards:
        if (said := re.search(r"-of-([0-9]+)", shard.stem)) is not None and int(said[1]) != len(shards):
            raise ManifestError(f"{shard}: is one of {int(said[1])} shards, but {len(shards)} are there; get the rest")


def _with_devkit(images: list[FoundImage], devkit: Devkit | None, place: Path) -> list[FoundImage]:
    """Images with the labels that the devkit has for those that lie flat."""
    if all(image.label is not None for image in images):
        return images
    if devkit is None:
        raise ManifestError(
            f"{place}: its images lie in no class folders, so that only the devkit has their labels; give "
            f"--devkit {ARCHIVE}"
        )
    return [image._replace(label=_validation_label(image, devkit, place)) for image in images]


def _validation_label(image: FoundImage, devkit: Devkit, place: Path) -> str:
    numbered = _VALIDATION.match(image.stem)
    if numbered is None or not 1 <= int(numbered[1]) <= len(devkit.validation):
        raise ManifestError(
            f"{place}: {image.stem} isn't one of the {len(devkit.validation)} validation images that the devkit "
            "labels, ILSVRC2012_val_00000001 and so on"
        )
    return devkit.validation[int(numbered[1]) - 1]


def _class_names(
    found: Mapping[str, Sequence[FoundImage]], sources: ImageSources, devkit: Devkit | None
) -> tuple[str, ...]:
    """Names in label order: those that were given, the devkit's, or what folders and shards say."""
    if sources.classes is not None:
        return read_class_list(sources.classes)
    if devkit is not None:
        return tuple(f"{wnid} {words}" for wnid, words in devkit.words.items())
    images = [image for images in found.values() for image in images]
    named = {image.label for image in images if isinstance(image.label, str)}
    by_number = _names_of_numbers(images)
    if not by_number:
        return tuple(sorted(named))
    if named and sorted(named) != [by_number.get(number) for number in range(max(by_number) + 1)]:
        raise ManifestError("one split names its classes and the other numbers them otherwise; give --classes FILE")
    numbers = range(max(by_number) + 1)
    from_file = next((said for place in sources.splits.values() if (said := _names_in(place)) is not None), None)
    if set(by_number.values()) == {None} and from_file is not None and len(from_file) > max(numbers):
        return tuple(from_file)
    return tuple(by_number.get(number) or str(number) for number in numbers)


def _names_of_numbers(images: Sequence[FoundImage]) -> dict[int, str | None]:
    """The WordNet id of each numbered class where the names of images have it.

    Raises:
        ManifestError: The numbers aren't the ranks of the ids.
    """
    seen: dict[int, set[str]] = defaultdict(set)
    for image in images:
        if isinstance(image.label, int):
            _, wnid = stem_of(image.member or "")
            seen[image.label].update(() if wnid is None else (wnid,))
    several = next((number for number, wnids in sorted(seen.items()) if len(wnids) > 1), None)
    known = [(number, min(wnids)) for number, wnids in sorted(seen.items()) if wnids]
    if several is not None or [wnid for _, wnid in known] != sorted({wnid for _, wnid in known}):
        what = f"label {several} is of {', '.join(sorted(seen[several])[:_SHOWN])}" if several is not None else "labels"
        raise ManifestError(f"{what}: not the ranks of the sorted WordNet ids; give --classes FILE in label order")
    if min(seen, default=0) < 0:
        raise ManifestError(
            f"label {min(seen)} is negative: an unlabelled test set, which can't be trained or scored on"
        )
    return {number: min(wnids, default=None) for number, wnids in seen.items()}


def _names_in(place: Path) -> list[str] | None:
    shards = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    return class_names_in(shards[0]) if shards and shards[0].suffix == ".parquet" else None


def _manifest(
    images: Sequence[FoundImage], split: str, names: Sequence[str], numbers: Mapping[str, int], place: Path
) -> Manifest:
    seen = {image.label for image in images}
    unknown = [
        str(label)
        for label in seen
        if (label not in numbers if isinstance(label, str) else not 0 <= (label or 0) < len(names))
    ]
    if unknown:
        some = ", ".join(sorted(unknown)[:_SHOWN])
        raise ManifestError(f"{place}: {len(unknown)} of its classes aren't among the {len(names)} known ones: {some}")
    labels = [image.label if isinstance(image.label, int) else numbers[str(image.label)] for image in images]
    keys = [key_of(name) for name in names]
    return manifest_from_rows(
        video_ids=[f"{keys[label]}/{image.stem}" for label, image in zip(labels, images, strict=True)],
        paths=[image.path for image in images],
        labels=labels,
        splits=[split] * len(images),
        sizes_bytes=[image.size_bytes for image in images],
        class_names=names,
        items="images",
        images=image_cells(images),
    )


def _differences(manifests: Mapping[str, Manifest], names: Sequence[str]) -> Iterator[str]:
    """Where a split isn't that of ImageNet-1K, though its classes are."""
    if not all(WNID.fullmatch(key_of(name)) for name in names):
        return
    for split, manifest in manifests.items():
        per_class = Counter(manifest.table["label"].to_pylist())
        if (len(manifest), len(per_class)) == (OFFICIAL[split], OFFICIAL_CLASSES):
            continue
        uneven = [key_of(names[label]) for label, count in sorted(per_class.items()) if count != 50]
        where = (
            f"; {len(uneven)} classes haven't their 50, the first: {', '.join(uneven[:_SHOWN])}"
            if split == "val" and uneven and len(per_class) == OFFICIAL_CLASSES
            else ""
        )
        missing = OFFICIAL[split] - len(manifest)
        what = f"a subset, or {missing:,} are missing" if missing > 0 else "another set of as many, or more"
        yield (
            f"{split}: {len(manifest):,} images of {len(per_class):,} classes; ImageNet-1K has {OFFICIAL[split]:,} of "
            f"{OFFICIAL_CLASSES:,}: {what}{where}"
        )
