"""Where the time of a training step goes: a trace for Chrome or Perfetto, and a table by part of the network.

Next to a part's time stands what it moves and computes by the byte model (`step_bytes`, of compiled blocks
`compiled_bytes`), and how near that is to what the device reaches here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from morphmlp.benchmarks.compiled_bytes import compiled_block_bytes
from morphmlp.benchmarks.device_peaks import Peaks, measure_peaks
from morphmlp.benchmarks.step_bytes import Moved, counted_parts, network_without_data
from morphmlp.benchmarks.step_loop import prepared_state, run_steps, timed_round
from morphmlp.benchmarks.step_parts import MARK, OTHER, PartWatch, parts_watched
from morphmlp.config import ExperimentConfig
from morphmlp.models.fused.form import as_fused
from morphmlp.training.loop.loop import StepSummary

OPTIMISER = "optimiser"
_BACKWARD = "autograd::engine::evaluate_function: "
_WARM_UP = 2
"""Steps before those that are profiled; the first one compiles."""


@dataclass(frozen=True, kw_only=True)
class PartProfile:
    """A part of the network, forward and backward, of one step."""

    part: str
    seconds: float
    """The device's, or on CPUs the threads'."""
    share: float
    """Of the whole step, 0-1."""
    kernels: float
    """Launched on the device; on CPUs operations."""
    moved: Moved | None
    """By the byte model; None where that knows nothing."""
    bandwidth_share: float | None
    """Bytes a second over what a copy reaches, 0-1; more where caches help."""
    compute_share: float | None
    """Operations a second over what a matrix product reaches, 0-1."""
    bound: str
    """`memory` or `compute`: which of the two limits it by the model; empty where nothing is known."""


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """A step's time by part."""

    parts: Sequence[PartProfile]
    step_s: float
    """Seconds of a step, without the profiler."""
    profiled_s: float
    """The same by the profiler's sum over the parts."""
    clips_per_step: int
    peak_bytes: int | None
    """Most memory of the device; None on a CPU."""
    first_step_s: float
    """Seconds of the very first step, with compilation."""
    peaks: Peaks
    device: str
    compiled: bool
    steps: int
    """That were profiled."""


def profile_step(
    config: ExperimentConfig,
    *,
    steps: int,
    device: torch.device,
    trace: Path | None,
    log: Callable[[str], None],
    with_bytes: bool = True,
) -> StepProfile:
    """Profile steps of the run's own loop on clips in memory.

    Args:
        config: The experiment, with its precision, compiled and recomputed blocks.
        steps: That are profiled.
        device: Where.
        trace: Where the trace goes, `.json` or `.json.gz`; None: nowhere.
        log: Takes lines that say what is being done.
        with_bytes: Count bytes too, which takes seconds, and minutes of compiled blocks.
    """
    state = prepared_state(config, device)
    compiled, in_16_bit = config.execution.compile != "off", state.precision != "fp32"
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with parts_watched(state.model, inside_blocks=not compiled) as watch:
        taken = run_steps(config, state, device=device)

        def seconds(count: int) -> float:
            return timed_round(taken, count, after=_wait_for_last)

        log("first steps")
        first_s = seconds(1)
        seconds(_WARM_UP)
        step_s = seconds(steps) / steps
        log(f"{steps} profiled steps")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiler:
            seconds(steps)
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace))
    log("bytes by the model, and what the device reaches")
    times = _times(profiler.events(), watch, on_gpu=on_gpu)
    clips = config.train.micro_batch_size * config.augment.repeats
    moved = _moved(config, clips=clips, in_16_bit=in_16_bit, compiled=compiled) if with_bytes else {}
    peaks = measure_peaks(device, in_16_bit=in_16_bit)
    whole = sum(spent for spent, _ in times.values()) / steps
    return StepProfile(
        parts=[
            _part(name, spent / steps, count / steps, whole=whole, moved=moved.get(name), peaks=peaks)
            for name, (spent, count) in sorted(times.items(), key=lambda item: -item[1][0])
        ],
        step_s=step_s,
        profiled_s=whole,
        clips_per_step=clips * config.train.micro_batches_per_step,
        peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        first_step_s=first_s,
        peaks=peaks,
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        compiled=compiled,
        steps=steps,
    )


def profile_table(found: StepProfile) -> str:
    """A line for each part, the slowest first."""
    rows = [
        (
            part.part,
            f"{1000 * part.seconds:.2f}",
            f"{part.share:.1%}",
            f"{part.kernels:.0f}",
            "-" if part.moved is None else f"{part.moved.bytes / 1e9:.3f}",
            "-" if part.moved is None else f"{part.moved.flops / 1e9:.1f}",
            _percent(part.bandwidth_share),
            _percent(part.compute_share),
            part.bound or "-",
        )
        for part in found.parts
    ]
    headers = ("part", "ms", "share", "kernels", "GB", "GFLOP", "of bandwidth", "of peak", "bound")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 7, "left"))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _part(name: str, seconds: float, kernels: float, *, whole: float, moved: Moved | None, peaks: Peaks) -> PartProfile:
    known = moved is not None and seconds > 0
    return PartProfile(
        part=name,
        seconds=seconds,
        share=seconds / whole if whole else 0.0,
        kernels=kernels,
        moved=moved,
        bandwidth_share=moved.bytes / seconds / peaks.bytes_per_s if known and moved is not None else None,
        compute_share=moved.flops / seconds / peaks.flops_per_s if known and moved is not None else None,
        bound="" if moved is None else peaks.bound(moved=moved.bytes, flops=moved.flops),
    )


def _moved(config: ExperimentConfig, *, clips: int, in_16_bit: bool, compiled: bool) -> dict[str, Moved]:
    """Of a step, by part; compiled blocks are whole, with the operations of those that aren't."""
    network = network_without_data(config)
    if config.execution.kernels == "triton":
        as_fused(network)
    with FakeTensorMode(allow_non_fake_inputs=True):
        eager = counted_parts(network, torch.empty(clips, *network.input_shape), in_16_bit=in_16_bit)
    found = dict(eager)
    if compiled:
        found = {part: moved for part, moved in eager.items() if not part.startswith("stage ")}
        planned = compiled_block_bytes(config, clips=clips, in_16_bit=in_16_bit)
        for stage, (block, depth) in enumerate(zip(planned, config.model.depths, strict=True), start=1):
            flops = sum(moved.flops for part, moved in eager.items() if part.startswith(f"stage {stage}: "))
            whole = block.whole
            found[f"stage {stage}"] = Moved(bytes=depth * whole.bytes, kernels=depth * whole.kernels, flops=flops)
    times = config.train.micro_batches_per_step
    return {
        part: Moved(bytes=times * moved.bytes, kernels=times * moved.kernels, flops=times * moved.flops)
        for part, moved in found.items()
    }


def _times(events: Iterable[FunctionEvent], watch: PartWatch, *, on_gpu: bool) -> dict[str, tuple[float, int]]:
    """Seconds of each part, and its kernels, or on CPUs its operations."""
    found: dict[str, tuple[float, int]] = {}
    for event in events:
        if event.device_type != torch._C._autograd.DeviceType.CPU or event.is_async:
            continue
        micros = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if micros <= 0:
            continue
        part = _part_of(event, watch)
        seconds, count = found.get(part, (0.0, 0))
        found[part] = seconds + micros / 1e6, count + (len(event.kernels) if on_gpu else 1)
    return found


def _part_of(event: Any, watch: PartWatch) -> str:
    """The part whose mark, or whose operation's undoing, an event lies in."""
    around = event
    while around is not None:
        name = around.name
        if name.startswith(MARK):
            return str(name.removeprefix(MARK))
        if name.startswith(_BACKWARD):
            return watch.of_number(around.sequence_nr) if around.sequence_nr >= 0 else OTHER
        if name.startswith("Optimizer.step"):
            return OPTIMISER
        around = around.cpu_parent
    return OTHER


def _wait_for_last(summaries: list[StepSummary]) -> None:
    summaries[-1].totals.loss_sum.item()
