"""What a decode task is asked for, and what it does: decode videos, extract clips, say why where that fails.

The same call serves a Ray Data task, a DataLoader's worker, a replay and a test. The decoder runs in a separate
process, so that whatever it does with a file costs that video alone.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from morphmlp.config.operation import IngestConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import ClipExtractor, ExtractedClips
from morphmlp.data.columns import DECODED
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.decoding.stored_frames.image_bytes import IMAGE_CELLS, StoredImage
from morphmlp.data.manifest import Manifest
from morphmlp.data.quarantine import file_state
from morphmlp.data.stream.clip_cache import ClipCache, clip_address
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.errors import DecoderStartError

REQUEST_COLUMNS = ("video_id", "path", "label", "num_frames", "crc32", *IMAGE_CELLS)
"""Columns of a manifest that decoding reads, those of images where there are any."""


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
        results = [self._timed(video) for video in videos]
        clips = [result.pop("clips") for result in results]
        columns = {
            "row": table["row"].combine_chunks(),
            "label": table["label"].combine_chunks(),
            "clips": _binary_column(clips),
            **{name: pa.array([result[name] for result in results], DECODED.field(name).type) for name in _FACTS},
        }
        return pa.table([columns[name] for name in DECODED.names], schema=DECODED)

    def _timed(self, video: Mapping[str, Any]) -> dict[str, Any]:
        before = self._cpu_s()
        result = self._decode(video)
        return {**result, "cpu_s": self._cpu_s() - before}

    def _cpu_s(self) -> float:
        """CPU seconds so far of this thread, which does all that a task does itself, and of its decoders' processes."""
        openers = [isolated_videos(decoder, self.policy.limits) for decoder in self.policy.decoders()]
        return time.thread_time() + sum(opener.cpu_s for opener in openers)

    def _decode(self, video: Mapping[str, Any]) -> dict[str, Any]:
        reasons: list[tuple[str, Exception]] = []
        for decoder in self.policy.decoders():
            try:
                extracted = self._extract(decoder, video)
            except DecoderStartError:
                raise
            except Exception as error:  # noqa: BLE001 (whatever a codec does with a file, it costs this video alone)
                reasons.append((decoder, error))
                continue
            return _good(extracted, retried=bool(reasons))
        return _broken(video["path"], reasons)

    def _extract(self, decoder: str, video: Mapping[str, Any]) -> ExtractedClips:
        """What a decoder makes of a video, now or before."""
        key = ClipKey(seed=video["seed"], epoch=video["epoch"], video_id=video["video_id"], copy=video["copy"])
        file = {name: video[name] for name in ("path", "num_frames", "crc32")} | {"image": StoredImage.of(video)}

        def decode() -> ExtractedClips:
            return self.extractor.extract(isolated_videos(decoder, self.policy.limits).open(**file), key)

        if self.policy.cache is None:
            return decode()
        try:
            address = clip_address(self.extractor, key, decoder, **file)
        except OSError:  # no such file: the decoder's words for it are the user's
            return decode()
        return self.policy.cache.get(address, decode)


_FACTS = [name for name in DECODED.names if name not in ("row", "label", "clips")]
_NO_ERROR = {"error": "", "message": "", "decoder": "", "decoder_version": "", "size_bytes": None, "mtime": None}


def _good(extracted: ExtractedClips, *, retried: bool) -> dict[str, Any]:
    height, width = extracted.clips.shape[-3:-1]
    return {
        "clips": extracted.clips,
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
        "clips": np.empty(0, dtype=np.uint8),
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


def _binary_column(clips: list[np.ndarray[Any, np.dtype[np.uint8]]]) -> pa.Array:
    """One large_binary cell a video, its bytes behind each other."""
    ends = np.cumsum([0, *(clip.nbytes for clip in clips)], dtype=np.int64)
    data = np.concatenate([clip.reshape(-1) for clip in clips])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(clips), buffers)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
