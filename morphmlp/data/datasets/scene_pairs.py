"""Images with label maps as pairs of files: found, looked at one by one, and brought into manifests.

Of an image only the head is looked at. Every map is decoded, by the decoders that a run uses: a label map that is
shifted, turned or of other classes trains without a complaint.
"""

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from morphmlp.data.datasets.imagenet.found import is_image_name
from morphmlp.data.datasets.lines import composed
from morphmlp.data.datasets.video_folder import is_text
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.decoding.stored_frames.frame_names import shown as printable
from morphmlp.data.decoding.stored_frames.image_bytes import Labels, StoredImage, image_bytes
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED, class_indices
from morphmlp.data.decoding.stored_frames.stills import ImageReader, Shown, oddities
from morphmlp.data.manifest import Manifest, manifest_from_rows
from morphmlp.errors import DecodeError, ManifestError

NO_MAP, NO_IMAGE = "images without a label map", "label maps without an image"
BAD_IMAGE, BAD_MAP = "images that can't be read", "label maps that can't be read"
OTHER_SIZE = "label maps of another size than their image"
OTHER_LABELS = "label maps with labels outside the classes"
_EXAMPLES = 3
_AT_ONCE = 16
_TIMEOUT_S = 120.0
_HEAD_BYTES = 2**18
"""Of an image's file, in which its size and colours stand; a rare one with large colour profiles is read whole."""

Log = Callable[[int, int], None]
"""Gets how many pairs have been looked at, and of how many; 0 first."""


class Pair(NamedTuple):
    """An image and its label map, files by their full paths; one of them may be missing."""

    name: str
    """The id in the manifest."""
    split: str
    image: str | None
    label_map: str | None


class Seen(NamedTuple):
    """What a pair is."""

    pair: Pair
    fault: str | None = None
    """Why it can't be used: one of the kinds above; None: it can."""
    words: str = ""
    """The same of this pair."""
    size_bytes: int | None = None
    map_crc32: int | None = None
    oddities: tuple[str, ...] = ()
    pixels: npt.NDArray[np.int64] | None = None
    """Pixels of the map by their stored value, 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class PreparedScenes:
    """The manifests by split, and what is to be said of them."""

    manifests: Mapping[str, Manifest]
    notes: Sequence[str]
    left_out: Sequence[str] = field(default=())
    """A line for each pair that can't be used, where those are left out."""


def find_pairs(
    images: Path, maps: Path, *, split: str, prefix: str = "", image_suffix: str = "", map_suffix: str = ""
) -> tuple[list[Pair], Counter[str]]:
    """The pairs of two folders by their paths without extension, however deep; and what was passed over.

    Args:
        images: Folder of images.
        maps: Folder of label maps, laid out alike; it may be the same one where suffixes tell them apart.
        split: Of all of them.
        prefix: Begins their ids.
        image_suffix: End of the names of images that those of maps don't have; other files are passed over.
        map_suffix: The same of maps.

    Raises:
        ManifestError: A folder can't be listed, a name isn't UTF-8, or several files have one name.
    """
    passed_over = Counter[str]()
    found_maps = _by_stem(maps, map_suffix, passed_over)
    found_images = _by_stem(images, image_suffix, passed_over, apart_from=set(found_maps.values()))
    return [
        Pair(f"{prefix}{stem}", split, found_images.get(stem), found_maps.get(stem))
        for stem in sorted({*found_images, *found_maps})
    ], passed_over


def _by_stem(root: Path, suffix: str, passed_over: Counter[str], apart_from: set[str] | None = None) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder, names, files in os.walk(root, onerror=_refuse, followlinks=True):
        names.sort()
        below = os.path.relpath(folder, root)
        for name in sorted(files):
            path = f"{os.path.abspath(folder)}/{name}"  # noqa: PTH100 - links stay, and a Path each costs more
            if path in (apart_from or ()):
                continue
            extension = os.path.splitext(name)[1]  # noqa: PTH122 - the same
            inside = (name if below == "." else f"{below}/{name}").removesuffix(extension)
            if not is_image_name(name) or not inside.endswith(suffix):
                passed_over["hidden" if name.startswith(".") else extension.lower() or "without extension"] += 1
                continue
            if not is_text(path):
                raise ManifestError(
                    f"{printable(path)}: isn't named in UTF-8, which a manifest can't hold (`convmv -t utf8`)"
                )
            stem = composed(inside.removesuffix(suffix))
            if stem in found:
                raise ManifestError(f"{root}: holds {found[stem]} and {path}, of which one alone can be {stem}")
            found[stem] = path
    return found


def _refuse(error: OSError) -> None:
    raise ManifestError(f"{printable(str(error.filename))}: can't be listed: {error.strerror}")


def look_at_pairs(
    pairs: Sequence[Pair], *, shown: Shown, log: Log = lambda done, total: None, workers: int | None = None
) -> list[Seen]:
    """Look at every pair, in decoders of their own processes, by default one for each CPU."""
    parts = [pairs[start : start + _AT_ONCE] for start in range(0, len(pairs), _AT_ONCE)]
    count = min(workers or len(os.sched_getaffinity(0)), len(parts)) or 1
    free = SimpleQueue[IsolatedVideos]()
    found: list[Seen] = []
    limits = Limits(timeout_s=_TIMEOUT_S, timeout_name="for one file", memory_name="one file")

    def look(part: Sequence[Pair]) -> list[Seen]:
        videos = free.get()
        try:
            maps = _maps_of(part, videos)
        finally:
            free.put(videos)
        return [_seen(pair, maps.get(pair.label_map), shown) for pair in part]

    log(0, len(pairs))
    with ExitStack() as stack:
        for _ in range(count):
            free.put(stack.enter_context(IsolatedVideos("pyav", limits)))
        pool = ThreadPoolExecutor(count)
        stack.callback(pool.shutdown, cancel_futures=True)
        for part in pool.map(look, parts):
            found += part
            log(len(found), len(pairs))
    return found


class _Counted(NamedTuple):
    """A label map's size and its pixels by stored value."""

    width: int
    height: int
    pixels: npt.NDArray[np.int64]


def _maps_of(pairs: Sequence[Pair], videos: IsolatedVideos) -> dict[str | None, _Counted | DecodeError]:
    """What the label maps of some pairs hold."""
    as_stored = StoredImage(labels="as_stored")
    sources = [
        OpenVideo(path=pair.label_map, num_frames=None, crc32=None, image=as_stored)
        for pair in pairs
        if pair.image is not None and pair.label_map is not None
    ]
    found: list[_Counted | DecodeError] = []
    while len(found) < len(sources):
        for image in videos.read_images(sources[len(found) :]):
            if isinstance(image, DecodeError):
                found.append(image)
                continue
            assert image is not None  # what is opened as a label map is an image, or an error
            values = np.ascontiguousarray(image.frame[..., 0]).reshape(-1)
            found.append(_Counted(image.info.width, image.info.height, np.bincount(values, minlength=256)))
    return {source.path: each for source, each in zip(sources, found, strict=True)}


def _seen(pair: Pair, label_map: _Counted | DecodeError | None, shown: Shown) -> Seen:
    if pair.image is None or pair.label_map is None:
        return Seen(pair, NO_IMAGE if pair.image is None else NO_MAP, pair.name)
    if isinstance(label_map, DecodeError):
        return Seen(pair, BAD_MAP, str(label_map))
    assert label_map is not None
    try:
        width, height, odd = _head_of(pair.image, shown)
    except DecodeError as error:
        return Seen(pair, BAD_IMAGE, str(error))
    try:
        crc32 = zlib.crc32(image_bytes(pair.label_map))
    except DecodeError as error:
        return Seen(pair, BAD_MAP, f"{printable(pair.label_map)} {error}")
    if (width, height) != (label_map.width, label_map.height):
        sizes = f"image {width}x{height}, map {label_map.width}x{label_map.height} pixels"
        turned = next((f", {each}" for each in odd if each.startswith("EXIF orientation")), "")
        return Seen(pair, OTHER_SIZE, f"{pair.name} ({sizes}{turned})", oddities=odd)
    size = os.stat(pair.image).st_size  # noqa: PTH116 - a Path each costs more
    return Seen(pair, size_bytes=size, map_crc32=crc32, oddities=odd, pixels=label_map.pixels)


def _head_of(path: str, shown: Shown) -> tuple[int, int, tuple[str, ...]]:
    """An image's width and height as it's shown, and what is unusual about it.

    Raises:
        DecodeError: It isn't an image.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a Path each costs more
            head = file.read(_HEAD_BYTES)
            try:
                return _size_and_oddities(head, path, shown)
            except DecodeError:
                rest = file.read()
                if not rest:
                    raise
                return _size_and_oddities(head + rest, path, shown)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DecodeError(f"{printable(path)} can't be read: {reason}") from None


def _size_and_oddities(data: bytes, path: str, shown: Shown) -> tuple[int, int, tuple[str, ...]]:
    info = ImageReader(data, shown=shown, where=printable(path)).info
    return info.width, info.height, oddities(data, path)


def outside(seen: Seen, labels: Labels, num_classes: int) -> list[int]:
    """The stored values of a map that are no class, and not ignored."""
    if seen.pixels is None:
        return []
    values = np.flatnonzero(seen.pixels).astype(np.uint8)
    classes = class_indices(values, labels)
    return [int(value) for value in values[(classes >= num_classes) & (classes != IGNORED)]]


def scenes_of(
    seen: Sequence[Seen],
    *,
    where: Path,
    class_names: Sequence[str],
    labels: Labels,
    shown: Shown,
    leaves_out: bool,
    way_out: Mapping[str, str],
) -> PreparedScenes:
    """The manifests of pairs that were looked at.

    Args:
        seen: The pairs.
        where: Begins messages.
        class_names: Names in label order.
        labels: How the maps store a class.
        shown: How the images are shown.
        leaves_out: Pairs that can't be used become unavailable rows (those without an image none), instead of an error.
        way_out: By the kind of fault what else can be done about it.

    Raises:
        ManifestError: Pairs can't be used, each kind with its count and examples; or a split is empty.
    """
    judged = [_with_labels(each, labels, class_names) for each in seen]
    faults = list(_fault_lines(judged, where, way_out))
    if faults and not leaves_out:
        raise ManifestError(
            "\n".join([*faults, f"{where}: nothing was written; --leave-out-faulty goes on without these pairs"])
        )
    splits = dict.fromkeys(each.pair.split for each in judged)
    by_split = {split: [each for each in judged if each.pair.split == split] for split in splits}
    for split, rows in by_split.items():
        if all(each.fault for each in rows):
            raise ManifestError("\n".join([*faults, f"{where}: not one pair of {split} can be used"]))
    notes = [note for split, rows in by_split.items() for note in _notes(split, rows, labels, class_names)]
    return PreparedScenes(
        manifests={split: _manifest(rows, split, class_names, labels, shown) for split, rows in by_split.items()},
        notes=[*faults, *notes],
        left_out=[f"{each.pair.split}\t{each.pair.name}\t{each.fault}\t{each.words}" for each in judged if each.fault],
    )


def _with_labels(seen: Seen, labels: Labels, class_names: Sequence[str]) -> Seen:
    if not (values := outside(seen, labels, len(class_names))):
        return seen
    some = ", ".join(map(str, values[:_EXAMPLES])) + (" and more" if len(values) > _EXAMPLES else "")
    return seen._replace(fault=OTHER_LABELS, words=f"{seen.pair.name} ({some})")


def _fault_lines(seen: Sequence[Seen], where: Path, way_out: Mapping[str, str]) -> Iterator[str]:
    for kind in (NO_MAP, NO_IMAGE, BAD_IMAGE, BAD_MAP, OTHER_SIZE, OTHER_LABELS):
        of_kind = [each for each in seen if each.fault == kind]
        if of_kind:
            # An error's words are long: one is shown, of further ones the name.
            long = kind in (BAD_IMAGE, BAD_MAP)
            some = [each.pair.name if long and place else each.words for place, each in enumerate(of_kind[:_EXAMPLES])]
            more = f" and {len(of_kind) - len(some):,} more" if len(of_kind) > len(some) else ""
            hint = f"; {way_out[kind]}" if kind in way_out else ""
            yield f"{where}: {len(of_kind):,} of {len(seen):,} {kind}: {', '.join(some)}{more}{hint}"


def _notes(split: str, rows: Sequence[Seen], labels: Labels, class_names: Sequence[str]) -> Iterator[str]:
    """What is unusual about a split's images and maps, though it can be used."""
    good = [each for each in rows if not each.fault]
    if odd := Counter(oddity for each in good for oddity in each.oddities):
        yield f"{split}: images read as they are: {', '.join(f'{n:,} {oddity}' for oddity, n in odd.most_common())}"
    pixels = sum((each.pixels for each in good if each.pixels is not None), np.zeros(256, np.int64))
    classes = class_indices(np.arange(256, dtype=np.uint8), labels)
    yield f"{split}: {pixels[classes == IGNORED].sum() / pixels.sum():.1%} of all pixels are ignored"
    if empty := sum(not each.pixels[classes != IGNORED].any() for each in good if each.pixels is not None):
        yield f"{split}: {empty:,} label maps have no pixel of any class"
    absent = [name for label, name in enumerate(class_names) if not pixels[classes == label].any()]
    if absent:
        more = f" and {len(absent) - _EXAMPLES} more" if len(absent) > _EXAMPLES else ""
        yield f"{split}: no label map has a pixel of {', '.join(map(repr, absent[:_EXAMPLES]))}{more}"


def _manifest(rows: Sequence[Seen], split: str, class_names: Sequence[str], labels: Labels, shown: Shown) -> Manifest:
    rows = [each for each in rows if each.pair.image is not None]
    cells: dict[str, Sequence[object]] = {
        "map_path": [each.pair.label_map for each in rows],
        "map_crc32": [each.map_crc32 for each in rows],
        "map_zero_is_ignored": [labels == "zero_is_ignored"] * len(rows),
    }
    if shown == "as stored":
        cells["as_stored"] = [True] * len(rows)
    return manifest_from_rows(
        video_ids=[each.pair.name for each in rows],
        paths=[str(each.pair.image) for each in rows],
        labels=[0] * len(rows),
        splits=[split] * len(rows),
        sizes_bytes=[None if each.fault else each.size_bytes for each in rows],
        class_names=class_names,
        items="images",
        task="segmentation",
        images=cells,
    )
