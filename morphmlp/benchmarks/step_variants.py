"""What an experiment's choices of arithmetic, compiled and recomputed blocks do to a training step: time and memory.

All variants run interleaved in one process, on clips in memory; decoding, checkpoints and Ray play no part.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from pydantic import JsonValue
from tabulate import tabulate

from morphmlp.benchmarks.block_limits import BlockLimit, block_limits
from morphmlp.benchmarks.device_peaks import Peaks, measure_peaks
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.benchmarks.step_loop import prepared_state, run_steps, timed_round
from morphmlp.config import load_config
from morphmlp.training.loop.device_choices import micro_batch_activations
from morphmlp.training.loop.loop import StepSummary

AS_CONFIGURED = "as configured"
VARIANTS: Mapping[str, Mapping[str, JsonValue]] = {
    AS_CONFIGURED: {},
    "fp32": {"train.precision": "fp32"},
    "compiled blocks": {"execution.compile": "blocks"},
    "recomputed blocks": {"execution.activation_checkpointing": "on"},
    "fused kernels": {"execution.kernels": "triton"},
    "fused kernels, compiled blocks": {"execution.kernels": "triton", "execution.compile": "blocks"},
    "compiled and recomputed": {"execution.compile": "blocks", "execution.activation_checkpointing": "on"},
}
"""What is laid over the experiment."""


@dataclass(frozen=True, kw_only=True)
class StepVariant:
    """Medians over the rounds."""

    name: str
    step_s: float
    """Seconds of an optimiser step."""
    clips_per_s: float
    ratio: float
    """Time of its step over that of the experiment as it is configured: median over the rounds, pair by pair."""
    first_step_s: float
    """Seconds of the very first step, with compilation."""
    peak_bytes: int | None
    """Most memory of the device that a training of this variant alone takes; None on a CPU."""
    activation_bytes: int
    """What a micro-batch keeps for the backward pass, as `execution.activation_checkpointing: auto` estimates."""


@dataclass(frozen=True, kw_only=True)
class StepVariants:
    """The variants side by side."""

    variants: Sequence[StepVariant]
    blocks: Sequence[BlockLimit]
    """A block of each stage of each variant, next to its own limit."""
    peaks: Mapping[str, Peaks]
    """What the device reaches, by arithmetic."""
    experiment: str
    clips_per_step: int
    micro_batches: int
    """Of a step."""
    rounds: int
    steps_per_round: int
    device: str


def compare_variants(
    experiment: str,
    overrides: Mapping[str, JsonValue],
    *,
    rounds: int,
    steps: int,
    device: torch.device,
    log: Callable[[str], None],
) -> StepVariants:
    """Time the variants of an experiment's step, interleaved.

    Args:
        experiment: Its file.
        overrides: Laid over all variants.
        rounds: That are measured.
        steps: Of a round.
        device: Where.
        log: Takes lines that say what is being done.
    """
    trainings = {}
    for name, changes in VARIANTS.items():
        if "execution.kernels" in changes and device.type != "cuda":
            log(f"{name}: left out, Triton's kernels need a GPU")
            continue
        log(f"{name}: first steps")
        trainings[name] = _Training(experiment, {**overrides, **changes}, device)
    times: dict[str, list[float]] = {name: [] for name in trainings}
    for number, name in interleaved(list(trainings), rounds):
        log(f"round {number + 1} of {rounds}: {name}")
        times[name].append(trainings[name].round_s(steps))
    log("blocks, bytes by the model, and what the device reaches")
    peaks = {in_16_bit: measure_peaks(device, in_16_bit=in_16_bit) for in_16_bit in (False, True)}
    blocks = [
        limit
        for name, training in trainings.items()
        for limit in block_limits(name, training.config, training.state, peaks=peaks, rounds=rounds, device=device)
    ]
    clips = trainings[AS_CONFIGURED].clips_per_step
    return StepVariants(
        variants=[
            StepVariant(
                name=name,
                step_s=median(seconds) / steps,
                clips_per_s=clips * steps / median(seconds),
                ratio=median_ratio(seconds, times[AS_CONFIGURED]),
                first_step_s=trainings[name].first_step_s,
                peak_bytes=trainings[name].peak_bytes,
                activation_bytes=trainings[name].activation_bytes,
            )
            for name, seconds in times.items()
        ],
        blocks=blocks,
        peaks={peak.precision: peak for peak in peaks.values()},
        experiment=experiment,
        clips_per_step=clips,
        micro_batches=trainings[AS_CONFIGURED].micro_batches,
        rounds=rounds,
        steps_per_round=steps,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    )


def variants_table(found: StepVariants) -> str:
    """A line for each variant."""
    rows = [
        (
            variant.name,
            f"{1000 * variant.step_s:.1f}",
            f"{variant.clips_per_s:.1f}",
            f"{variant.ratio:.3f}",
            f"{variant.first_step_s:.1f}",
            "-" if variant.peak_bytes is None else f"{variant.peak_bytes / 2**30:.2f}",
            f"{variant.activation_bytes / 2**30:.2f}",
        )
        for variant in found.variants
    ]
    headers = (
        "variant",
        "step (ms)",
        "clips/s",
        "ratio",
        "first step (s)",
        "peak (GiB)",
        "activations (GiB, estimated)",
    )
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 6))


class _Training:
    """One variant, warmed up."""

    def __init__(self, experiment: str, overrides: Mapping[str, JsonValue], device: torch.device) -> None:
        self.config = config = load_config(experiment, overrides)
        self._device = device
        self.clips_per_step = config.train.global_batch_size * config.augment.repeats
        self.micro_batches = config.train.micro_batches_per_step
        before = self._allocated()
        self.state = state = prepared_state(config, device)
        self.activation_bytes = micro_batch_activations(config).total(
            state.model.recomputed_stages, in_16_bit=state.precision != "fp32"
        )
        self._steps = run_steps(config, state, device=device)
        began = time.perf_counter()
        self._take(1)
        self.first_step_s = time.perf_counter() - began
        self._take(2)
        self._own_bytes = self._allocated() - before
        self.peak_bytes: int | None = None

    def round_s(self, steps: int) -> float:
        """Seconds that `steps` steps take."""
        if self._device.type != "cuda":
            return self._take(steps)
        others = self._allocated() - self._own_bytes
        torch.cuda.reset_peak_memory_stats(self._device)
        seconds = self._take(steps)
        peak = torch.cuda.max_memory_allocated(self._device) - others
        self.peak_bytes = max(peak, self.peak_bytes or 0)
        return seconds

    def _take(self, steps: int) -> float:
        return timed_round(self._steps, steps, after=_wait_for_last)

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0


def _wait_for_last(summaries: list[StepSummary]) -> None:
    summaries[-1].totals.loss_sum.item()
