"""What a decode task is asked for, and what it does: decode videos, extract clips, say why where that fails.

The same call serves a Ray Data task, a DataLoader's worker, a replay and a test. The decoder runs in a separate
process, so that whatever it does with a file costs that video alone.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from morphmlp.config.operation import IngestConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import ClipExtractor, ExtractedClips
from morphmlp.data.columns import DECODED, SCENE
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.isolation.isolated import DecodedImage, IsolatedVideos, Limits, isolated_videos
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.decoding.protocol import FrameReader, Frames
from morphmlp.data.decoding.sources import is_image
from morphmlp.data.decoding.stored_frames.image_bytes import IMAGE_CELLS, StoredImage
from morphmlp.data.manifest import Manifest
from morphmlp.data.quarantine import file_state
from morphmlp.data.stream.clip_cache import ClipCache, clip_address
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.errors import DecodeError, DecoderKilledError, DecoderStartError

IMAGES_AT_ONCE = 16
"""Images that a decoder's process is asked for at a time: that asking costs little, and pixels stay in the cache."""
REQUEST_COLUMNS = ("video_id", "path", "label", "num_frames", "crc32", *IMAGE_CELLS, *SCENE.names)
"""Columns of a manifest that decoding reads, those of images and label maps where there are any."""


def request_table(manifest: Manifest, group: Sequence[MicroBatchPlan]) -> pa.Table:
    """What a decode task needs to know of its videos: rows of the manifest with the seed and epoch of their draws."""
    rows = np.concatenate([plan.rows for plan in group]).astype(np.int64)
    counts = [len(plan.rows) for plan in group]
    known = [name for name in REQUEST_COLUMNS if name in manifest.table.column_names]
    table = manifest.table.select(known).take(pa.array(rows)).combine_chunks()
    for name, cells in (
        ("row", rows),
        ("seed", np.repeat([plan.seed for plan in group], counts)),
        ("epoch", np.repeat([plan.epoch for plan in group], counts)),
        ("copy", np.concatenate([plan.copy_numbers for plan in group])),
    ):
        table = table.append_column(name, pa.array(cells))
    return table


def decode_limits(ingest: IngestConfig) -> Limits:
    """What one video may take in a run."""
    return Limits(timeout_s=ingest.decode_timeout_s, memory_mb=ingest.decoder_memory_mb)


@dataclass(frozen=True, kw_only=True)
class DecodePolicy:
    """By which decoder, and how patiently."""

    decoder: str
    retry_with: str | None
    """Decoder of a second try."""
    limits: Limits
    """What one video may take."""
    cache: ClipCache | None = None
    """Clips that were decoded before, by this training or others."""
    image_decoder: str = "simplejpeg"
    """What decodes JPEGs."""
    number: int = 0
    """Which of this process's decoders is used, where threads have one each."""

    def opener(self, decoder: str) -> IsolatedVideos:
        """What opens videos in this process by one of its decoders."""
        return isolated_videos(decoder, self.limits, self.image_decoder, number=self.number)

    def decoders(self) -> tuple[str, ...]:
        """In the order in which they are tried."""
        return (self.decoder,) if self.retry_with is None else (self.decoder, self.retry_with)


@dataclass(frozen=True, kw_only=True)
class DecodeTask:
    """Decodes the videos of one data block.

    Columns in: those of `request_table`. Columns out: `morphmlp.data.columns.DECODED`.
    """

    extractor: ClipExtractor
    policy: DecodePolicy

    def __call__(self, table: pa.Table) -> pa.Table:
        """Extract every video's clips; a video that can't be used leaves no bytes and its reason."""
        torch.set_num_threads(1)  # one CPU is reserved for the task
        videos = table.drop_columns(["row", "label"]).to_pylist()
        groups = _groups(videos, self.policy)
        clips, maps, results = BytesColumn(len(videos)), BytesColumn(len(videos)), []
        for group in groups:
            for result in self._timed(group):
                clips.append(result.pop("clips"))
                maps.append(result.pop("maps"))
                results.append(result)
        columns = {
            "row": table["row"].combine_chunks(),
            "label": table["label"].combine_chunks(),
            "clips": clips.array(),
            "maps": maps.array(),
            **{name: pa.array([result[name] for result in results], DECODED.field(name).type) for name in _FACTS},
        }
        return pa.table([columns[name] for name in DECODED.names], schema=DECODED)

    def _timed(self, group: "_Group") -> list[dict[str, Any]]:
        """What comes of a group's videos, each with an equal part of the time."""
        before = self._cpu_s()
        results = [self._decode(group, place) for place in range(len(group.videos))]
        cpu_s = (self._cpu_s() - before) / len(results)
        return [{**result, "cpu_s": cpu_s} for result in results]

    def _cpu_s(self) -> float:
        """CPU seconds so far of this thread, which does all that a task does itself, and of its decoders' processes."""
        openers = [self.policy.opener(decoder) for decoder in self.policy.decoders()]
        return time.thread_time() + sum(opener.cpu_s for opener in openers)

    def _decode(self, group: "_Group", place: int) -> dict[str, Any]:
        reasons: list[tuple[str, Exception]] = []
        for decoder in self.policy.decoders():
            try:
                try:
                    extracted = self._extract(decoder, group, place)
                except DecoderKilledError:
                    # Where memory runs out the system ends any process, not the one that took it; twice is no chance.
                    extracted = self._extract(decoder, group, place)
            except DecoderStartError:
                raise
            except Exception as error:  # noqa: BLE001 (whatever a codec does with a file, it costs this video alone)
                reasons.append((decoder, error))
                continue
            return _good(extracted, retried=bool(reasons or extracted.refused))
        return _broken(group.sources[place].path, reasons)

    def _extract(self, decoder: str, group: "_Group", place: int) -> ExtractedClips:
        """What a decoder makes of a video, now or before."""
        video = group.videos[place]
        key = ClipKey(seed=video["seed"], epoch=video["epoch"], video_id=video["video_id"], copy=video["copy"])
        source, label_map = group.sources[place], group.maps[place] if self.extractor.with_maps else None

        def decode() -> ExtractedClips:
            if not self.extractor.with_maps:
                return self.extractor.extract(group.open(decoder, place), key)
            labels = None if label_map is None else group.open_map(decoder, place, label_map)
            return self.extractor.extract(group.open(decoder, place), key, labels)

        if self.policy.cache is None:
            return decode()
        try:
            address = clip_address(
                self.extractor,
                key,
                decoder,
                image_decoder=self.policy.image_decoder,
                label_map=label_map,
                **vars(source),
            )
        except OSError:  # no such file: the decoder's words for it are the user's
            return decode()
        return self.policy.cache.get(address, decode)


_Ahead = dict[int, DecodedImage | DecodeError | None]


class _Group:
    """A video, or images that are decoded at one go as soon as one is asked for, and their label maps likewise."""

    def __init__(self, videos: Sequence[Mapping[str, Any]], policy: DecodePolicy) -> None:
        self.videos, self._policy = videos, policy
        self.sources = [
            OpenVideo(**{name: video[name] for name in _SOURCE}, image=StoredImage.of(video)) for video in videos
        ]
        self.maps = [_map_source(video) for video in videos]
        self._ahead: _Ahead = {}
        self._maps_ahead: _Ahead = {}

    def open(self, decoder: str, place: int) -> FrameReader:
        """Open one of them.

        Raises:
            DecodeError: It can't be used.
        """
        is_image = _may_be_image(self.videos[place])
        return self._opened(decoder, place, self.sources[place:] if is_image else self.sources[place], self._ahead)

    def open_map(self, decoder: str, place: int, source: OpenVideo) -> FrameReader:
        """Open the label map of one of them.

        Raises:
            DecodeError: It can't be used.
        """
        following = list(takewhile(lambda later: later is not None, self.maps[place:]))
        try:
            return self._opened(decoder, place, cast(list[OpenVideo], following), self._maps_ahead)
        except DecodeError as error:
            raise type(error)(f"its label map {error}") from None

    def _opened(self, decoder: str, place: int, sources: OpenVideo | list[OpenVideo], ahead: _Ahead) -> FrameReader:
        """One at a place; it and some of those behind it are decoded ahead where there are several sources."""
        opener = self._policy.opener(decoder)
        if isinstance(sources, OpenVideo):
            return opener.open(**vars(sources))
        if decoder == self._policy.decoder:
            if place not in ahead:
                ahead.update(enumerate(opener.read_images(sources), start=place))
            image = ahead.pop(place)
            if isinstance(image, DecodeError):
                raise image
            if image is not None:
                return image
        return opener.open(**vars(sources[0]))


def _map_source(video: Mapping[str, Any]) -> OpenVideo | None:
    """The label map of a row, where it has one."""
    image = StoredImage.of_map(video)
    if image is None:
        return None
    return OpenVideo(path=video["map_path"], num_frames=None, crc32=video["map_crc32"], image=image)


def _groups(videos: Sequence[Mapping[str, Any]], policy: DecodePolicy) -> Iterator[_Group]:
    for are_images, run in groupby(videos, _may_be_image):
        size = IMAGES_AT_ONCE if are_images else 1
        while part := list(islice(run, size)):
            yield _Group(part, policy)


def _may_be_image(video: Mapping[str, Any]) -> bool:
    return video.get("as_stored") is not None or video.get("offset") is not None or is_image(video["path"])


_SOURCE = ("path", "num_frames", "crc32")
_FACTS = [name for name in DECODED.names if name not in ("row", "label", "clips", "maps")]
_NO_BYTES: Frames = np.empty(0, dtype=np.uint8)
_NO_ERROR = {"error": "", "message": "", "decoder": "", "decoder_version": "", "size_bytes": None, "mtime": None}


def _good(extracted: ExtractedClips, *, retried: bool) -> dict[str, Any]:
    height, width = extracted.clips.shape[-3:-1]
    return {
        "clips": extracted.clips,
        "maps": _NO_BYTES if extracted.maps is None else extracted.maps,
        "height": height,
        "width": width,
        "concealed": extracted.concealed,
        "retried": retried,
        **_NO_ERROR,
    }


def _broken(path: str, reasons: list[tuple[str, Exception]]) -> dict[str, Any]:
    decoder, error = reasons[-1]
    several = len(reasons) > 1
    texts = [f"{name}: {_one_line(reason)}" if several else _one_line(reason) for name, reason in reasons]
    size, mtime = file_state(path)
    return {
        "clips": _NO_BYTES,
        "maps": _NO_BYTES,
        "height": 0,
        "width": 0,
        "concealed": 0,
        "retried": False,
        "error": type(error).__name__,
        "message": "; ".join(texts),
        "decoder": decoder,
        "decoder_version": decoder_by_name(decoder).version,
        "size_bytes": size,
        "mtime": mtime,
    }


class BytesColumn:
    """One large_binary cell a video, its clips' or maps' bytes behind each other.

    Each clip is copied as soon as it's there, so that the next one takes the same memory, which is in the cache.
    """

    def __init__(self, videos: int) -> None:
        """Make no room before the first one says how much is needed."""
        self._videos, self._ends = videos, [0]
        self._data = self._memory(0)

    def append(self, clips: npt.NDArray[np.uint8]) -> None:
        """Copy a video's bytes."""
        start, end = self._ends[-1], self._ends[-1] + clips.nbytes
        if end > len(self._data):  # most often the first of clips of one size
            left = self._videos - len(self._ends) + 1
            larger = self._memory(max(start + left * clips.nbytes, 2 * start))
            larger[:start] = self._data[:start]
            self._data = larger
        self._data[start:end] = clips.reshape(-1)
        self._ends.append(end)

    @staticmethod
    def _memory(size: int) -> Frames:
        """Arrow's own, which keeps the pages of the task before."""
        return np.frombuffer(pa.allocate_buffer(size), dtype=np.uint8)

    def array(self) -> pa.Array:
        """The cells, on the memory that they were copied into."""
        buffers = [None, pa.py_buffer(np.array(self._ends)), pa.py_buffer(self._data[: self._ends[-1]])]
        return pa.Array.from_buffers(pa.large_binary(), self._videos, buffers)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
