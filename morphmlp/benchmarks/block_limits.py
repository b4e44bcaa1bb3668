"""How far a block of each stage is from its own limit: its time next to what it moves and computes.

The limit is by the byte model (`step_bytes`, of compiled blocks `compiled_bytes`) and by what the device reaches here:
each variant has its own, since each moves other bytes.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from morphmlp.benchmarks.compiled_bytes import compiled_block_bytes
from morphmlp.benchmarks.device_peaks import Peaks
from morphmlp.benchmarks.step_bytes import Moved, block_inputs, counted, network_without_data
from morphmlp.config import ExperimentConfig
from morphmlp.models.fused.form import as_fused
from morphmlp.training.loop.loop import autocast
from morphmlp.training.loop.state import TrainState


@dataclass(frozen=True, kw_only=True)
class BlockLimit:
    """The last block of a stage, forward and backward, for one micro-batch."""

    variant: str
    stage: int
    seconds: float
    """Measured alone: median."""
    moved: Moved
    """By the byte model."""
    least_s: float
    """At the bandwidth and the arithmetic that the device reaches here."""
    bound: str
    """`memory` or `compute`."""

    @property
    def times_over(self) -> float:
        """Measured over least."""
        return self.seconds / self.least_s


class _Call(NamedTuple):
    block: nn.Module
    inputs: tuple[Tensor | None, ...]
    size: tuple[int, ...]


class TimedBlocks:
    """The last block of each stage of a training's network, with the maps that it gets there."""

    def __init__(self, state: TrainState, clips: int, device: torch.device) -> None:
        self._state, self._device = state, device
        self._calls: dict[int, _Call] = {}
        model = state.model
        run_block = model.run_block

        def noted(block: nn.Module, x: Tensor, *rest: Tensor | None, stage: int, size: tuple[int, ...]) -> Tensor:
            inputs = (x.detach(), *(None if tensor is None else tensor.detach() for tensor in rest))
            self._calls[stage] = _Call(block, inputs, size)
            return run_block(block, x, *rest, stage=stage, size=size)

        model.run_block = noted  # type: ignore[method-assign]
        try:
            with torch.no_grad(), autocast(device, state.precision):
                model(torch.zeros(clips, *model.input_shape, device=device))
        finally:
            del model.run_block

    def seconds(self, stage: int, *, rounds: int) -> float:
        """A forward and a backward pass: median."""
        found = [self._once(stage) for _ in range(rounds + 1)]
        return median(found[1:])  # the first one compiles, or takes memory

    def _once(self, stage: int) -> float:
        call, model = self._calls[stage], self._state.model
        x, *rest = call.inputs
        assert x is not None
        x = x.detach().requires_grad_()
        self._wait()
        began = time.perf_counter()
        with autocast(self._device, self._state.precision):
            y = model.run_block(call.block, x, *rest, stage=stage, size=call.size)
        torch.autograd.backward(y, torch.ones_like(y))
        self._wait()
        seconds = time.perf_counter() - began
        model.zero_grad(set_to_none=True)
        return seconds

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def block_limits(
    variant: str,
    config: ExperimentConfig,
    state: TrainState,
    *,
    peaks: Mapping[bool, Peaks],
    rounds: int,
    device: torch.device,
) -> list[BlockLimit]:
    """Time the blocks of a training, and work out their limits; `peaks` are those in 16 bit (True) and in fp32."""
    clips = config.train.micro_batch_size * config.augment.repeats
    in_16_bit, recomputed = state.precision != "fp32", state.model.recomputed_stages
    moved = _moved(
        config, clips=clips, in_16_bit=in_16_bit, compiled=config.execution.compile != "off", recomputed=recomputed
    )
    blocks, peak = TimedBlocks(state, clips, device), peaks[in_16_bit]
    return [
        BlockLimit(
            variant=variant,
            stage=stage,
            seconds=blocks.seconds(stage, rounds=rounds),
            moved=block,
            least_s=peak.least_s(moved=block.bytes, flops=block.flops),
            bound=peak.bound(moved=block.bytes, flops=block.flops),
        )
        for stage, block in enumerate(moved, start=1)
    ]


def limits_table(found: Sequence[BlockLimit]) -> str:
    """A line for each block of each variant."""
    rows = [
        (
            limit.variant,
            limit.stage,
            f"{1000 * limit.seconds:.2f}",
            f"{limit.moved.bytes / 1e9:.3f}",
            f"{limit.moved.flops / 1e9:.1f}",
            f"{1000 * limit.least_s:.2f}",
            limit.bound,
            f"{limit.times_over:.2f}",
        )
        for limit in found
    ]
    headers = ("variant", "stage", "a block (ms)", "GB", "GFLOP", "at least (ms)", "bound by", "times over")
    align = ("left", *["right"] * 5, "left", "right")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align)


def _moved(
    config: ExperimentConfig, *, clips: int, in_16_bit: bool, compiled: bool, recomputed: frozenset[int]
) -> list[Moved]:
    """One block of each stage; a recomputed one takes its forward pass twice."""
    network = network_without_data(config)
    if config.execution.kernels == "triton":
        as_fused(network)
    network.set_activation_checkpointing(recomputed)
    with FakeTensorMode(allow_non_fake_inputs=True):
        eager = []
        for stage, (blocks, x) in enumerate(
            zip(network.stage_blocks(), block_inputs(network, clips=clips, in_16_bit=in_16_bit), strict=True), start=1
        ):

            def run(x: Tensor, block: nn.Module = blocks[-1], stage: int = stage) -> Tensor:
                return network.run_block(block, x, stage=stage, size=network.input_shape[-2:])

            eager.append(counted(run, x.requires_grad_(), in_16_bit=in_16_bit))
    if not compiled:
        return eager
    planned = compiled_block_bytes(config, clips=clips, in_16_bit=in_16_bit)
    found = []
    for stage, (block, flops) in enumerate(zip(planned, (moved.flops for moved in eager), strict=True), start=1):
        whole = block.whole + block.forward if stage in recomputed else block.whole
        found.append(Moved(bytes=whole.bytes, kernels=whole.kernels, flops=flops))
    return found
