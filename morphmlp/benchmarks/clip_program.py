"""Extracts clips and decodes on request in a process of its own, so that the CPU time of all its threads is known.

Run as a program it reads one JSON request per line from standard input (see `clip_process`) and answers each with one
JSON line.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from morphmlp.benchmarks.clip_kinds import extractor_of
from morphmlp.benchmarks.process_cpu import cpu_seconds
from morphmlp.benchmarks.thumbnails import Thumbnails, thumbnails
from morphmlp.benchmarks.true_frames import true_frames
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.protocol import Box, DecodedFrames, VideoInfo, VideoOpener, VideoReader, cut
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import DecodeError

Answer = dict[str, object]


def opener_of(name: str, *, timeout_s: float) -> VideoOpener:
    """`isolated NAME`: as decode tasks open videos; `plain decord`: without this project; else the named decoder."""
    if name == "plain decord":
        return _PlainDecord()
    if name.startswith("isolated "):
        return IsolatedVideos(name.removeprefix("isolated "), Limits(timeout_s=timeout_s))
    return AnyVideo(decoder_by_name(name))


def serve() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what codecs print is no answer
    torch.set_num_threads(1)
    jobs: dict[str, Callable[[VideoOpener, Mapping[str, Any]], Answer]] = {
        "extract": _extract,
        "look": _look,
        "watch": _watch,
    }
    openers: dict[str, VideoOpener] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["opener"]
        if name not in openers:
            openers[name] = opener_of(name, timeout_s=request["timeout_s"])
        try:
            answer = jobs[request["job"]](openers[name], request)
        except Exception as error:  # noqa: BLE001 (whatever a decoder raises is an answer)
            answer = {"error": type(error).__name__, "message": " ".join(str(error).split())}
        print(json.dumps(answer), file=answers, flush=True)


def _extract(videos: VideoOpener, request: Mapping[str, Any]) -> Answer:
    """From the file to its clips."""
    extractor = extractor_of(request["kind"])
    before, began = _cpu_s(videos), time.perf_counter()
    key = ClipKey(seed=0, epoch=request["epoch"], video_id=request["video_id"])
    extractor.extract(videos.open(request["path"], num_frames=None), key)
    return {"cpu_s": _cpu_s(videos) - before, "wall_s": time.perf_counter() - began}


def _look(videos: VideoOpener, request: Mapping[str, Any]) -> Answer:
    """Wanted frames as small pictures."""
    frames = videos.open(request["path"], num_frames=None).read(request["indices"]).frames
    return _pictures(thumbnails(frames))


def _watch(videos: VideoOpener, request: Mapping[str, Any]) -> Answer:
    """The first frames of a file as small pictures, as no decoder of this project reads them."""
    del videos
    frames = true_frames(request["path"], by=request["by"], most=request["most_frames"])
    pictures = [thumbnails(frame[None]) for frame in frames]
    if not pictures:
        raise DecodeError("not one frame could be decoded")
    if len({picture.shape for picture in pictures}) > 1:
        raise DecodeError("its frames change size")
    return _pictures(np.concatenate(pictures))


def _pictures(found: Thumbnails) -> Answer:
    return {"shape": list(found.shape), "pictures": base64.b64encode(found.astype(np.float16).tobytes()).decode()}


def _cpu_s(videos: VideoOpener) -> float:
    """CPU time of this process, and of the one that decodes for it."""
    child = videos.child_pid if isinstance(videos, IsolatedVideos) else None
    return time.process_time() + (0.0 if child is None else cpu_seconds(child))


class _PlainDecord:
    """decord as its own documentation uses it, with one thread: what this project is compared with."""

    def open(
        self, path: str, *, num_frames: int | None, crc32: int | None = None, image: StoredImage | None = None
    ) -> VideoReader:
        """Open a file."""
        del num_frames, crc32, image
        import decord  # noqa: PLC0415 (no wheels outside x86-64 Linux)

        return _PlainDecordReader(decord.VideoReader(path, num_threads=1))


class _PlainDecordReader:
    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.info = VideoInfo(
            num_frames=len(reader), fps=float(reader.get_avg_fps()), pts_s=(), width=0, height=0, codec=""
        )

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        return DecodedFrames(frames=cut(self._reader.get_batch(list(indices)).asnumpy(), box), concealed=0)

    def scan(self) -> int:
        raise NotImplementedError


if __name__ == "__main__":
    serve()
