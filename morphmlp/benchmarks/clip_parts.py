"""Where the CPU time of a training clip goes, from its file to the table of a decode task, by the default decoder.

Decode tasks run as in training, with the decoder in a process of its own, whose CPU time is known as a whole. It's
divided as that of the same reads is in this process, where functions can be clocked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from tabulate import tabulate

from morphmlp.benchmarks.clip_kinds import extractor_of
from morphmlp.benchmarks.part_clock import REST, PartClock, Place
from morphmlp.data.clips import augment
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.decoding.isolation.child_process import ChildProcess
from morphmlp.data.decoding.isolation.isolated import Limits
from morphmlp.data.decoding.isolation.wire import SharedFrames
from morphmlp.data.decoding.protocol import Box, DecodedFrames, VideoReader, written_to
from morphmlp.data.decoding.pyav import direct_reader, pictures, stream_decoder
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.pyav.packets import Packets
from morphmlp.data.manifest import Manifest, manifest_from_rows
from morphmlp.data.stream import decode_task
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan

DECODING = "decoding"
_DECODER_PARTS: dict[str, Sequence[Place]] = {
    "opening the file": [(stream_decoder, "open_video")],
    "reading its packets": [(Packets, "__init__")],
    "their order and times": [(stream_decoder, "proven_order"), (stream_decoder.StreamDecoder, "info")],
    DECODING: [(stream_decoder.StreamDecoder, "_frames")],
    "converting to RGB": [(pictures.Pictures, "add"), (pictures.Pictures, "all")],
    "into shared memory": [(direct_reader, "stacked")],
}
_TASK_PARTS: dict[str, Sequence[Place]] = {
    "asking the decoder's process": [(ChildProcess, "ask")],
    "scaling": [(augment, "resize")],
    "into the table": [(decode_task.BytesColumn, "append")],
}
_DECODER_REST, _TASK_REST = "all else in the decoder's process", "draws, flip, and all else in the task"


@dataclass(frozen=True, kw_only=True)
class ClipParts:
    """Means over videos, of these medians over rounds."""

    cpu_ms: Mapping[str, float]
    """CPU milliseconds of a clip by part, in the order in which they come."""
    shares: Mapping[str, float]
    """Of them all."""
    total_ms: float
    packets: float
    """Packets of a clip that the codec is given; unwanted ones that no other needs are passed over by it."""
    clips: int


def measure_clip_parts(
    paths: Sequence[str], *, rounds: int, on_progress: Callable[[int], None] = lambda _: None
) -> ClipParts:
    """Measure on these files, a clip of each every round."""
    torch.set_num_threads(1)
    videos = _manifest(paths)
    policy = DecodePolicy(decoder="pyav", retry_with=None, limits=Limits(timeout_s=60.0))
    task = DecodeTask(extractor=extractor_of("train"), policy=policy)
    found: list[dict[str, float]] = []
    packets: list[float] = []
    for number in range(-1, rounds):
        plan = MicroBatchPlan(epoch=max(number, 0), step=0, index=0, rows=np.arange(len(paths)))
        in_task, decoder_s = _in_task(task, request_table(videos, [plan]))
        in_decoder = _in_decoder(paths, epoch=plan.epoch)
        if number < 0:
            continue  # imports, the process that decodes, and memory are there now
        found.append(_joined(in_decoder, in_task, decoder_s=decoder_s))
        packets.append(in_decoder.calls[DECODING] / len(paths))
        on_progress(number + 1)
    order = [*_DECODER_PARTS, _DECODER_REST, *_TASK_PARTS, _TASK_REST]
    cpu_ms = {part: 1000 * median(parts[part] for parts in found) / len(paths) for part in order}
    total_ms = sum(cpu_ms.values())
    return ClipParts(
        cpu_ms=cpu_ms,
        shares={part: milliseconds / total_ms for part, milliseconds in cpu_ms.items()},
        total_ms=total_ms,
        packets=median(packets),
        clips=rounds * len(paths),
    )


def parts_table(parts: ClipParts) -> str:
    """A row for each part."""
    rows = [[part, f"{cpu_ms:.2f}", f"{parts.shares[part]:.1%}"] for part, cpu_ms in parts.cpu_ms.items()]
    return tabulate(
        [*rows, ["all", f"{parts.total_ms:.2f}", ""]],
        ["part of a training clip", "CPU ms", "share"],
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", "right", "right"),
    )


def _joined(in_decoder: PartClock, in_task: PartClock, *, decoder_s: float) -> dict[str, float]:
    """Seconds by part, those of the decoder in the sum that its process took."""
    scale = decoder_s / sum(in_decoder.seconds.values())
    parts = {part: scale * seconds for part, seconds in in_decoder.seconds.items() if part != REST}
    parts[_DECODER_REST] = scale * in_decoder.seconds[REST]
    parts |= {part: seconds for part, seconds in in_task.seconds.items() if part != REST}
    return {**parts, _TASK_REST: in_task.seconds[REST]}


def _manifest(paths: Sequence[str]) -> Manifest:
    return manifest_from_rows(
        video_ids=[f"video {number}" for number in range(len(paths))],
        paths=paths,
        labels=[0] * len(paths),
        splits=["train"] * len(paths),
        sizes_bytes=[1] * len(paths),
        class_names=["a class"],
    )


def _in_task(task: DecodeTask, table: pa.Table) -> tuple[PartClock, float]:
    """CPU time of a decode task by part, and that of its decoder's process, seconds."""
    clock = PartClock()
    videos = task.policy.opener(task.policy.decoder)
    before = videos.cpu_s
    with clock.running(_TASK_PARTS):
        messages = task(table)["message"].to_pylist()
    if any(messages):
        raise RuntimeError(next(message for message in messages if message))
    return clock, videos.cpu_s - before


def _in_decoder(paths: Sequence[str], *, epoch: int) -> PartClock:
    """CPU time of the same reads by part, without what a task makes of the frames."""
    clock = PartClock()
    memory, extractor, decoder = SharedFrames(), extractor_of("train"), PyAVDecoder()
    for number, path in enumerate(paths):
        wanted = _Recorder(decoder.open(path))
        extractor.extract(wanted, ClipKey(seed=0, epoch=epoch, video_id=f"video {number}"))
        with clock.running(_DECODER_PARTS), written_to(memory.frames):
            decoder.open(path).read(*wanted.request)
    return clock


class _Recorder:
    """A reader that remembers what was asked of it."""

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self.info = reader.info
        self.request: tuple[Sequence[int], Box | None] = ((), None)

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        self.request = (indices, box)
        return self._reader.read(indices, box)
