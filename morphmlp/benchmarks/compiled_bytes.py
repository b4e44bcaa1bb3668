"""Bytes and kernels of compiled blocks, from Inductor's own graph: nothing is built and nothing runs.

Inductor plans its kernels on tensors without data; each kernel reads and writes what it doesn't keep in registers. So a
change that makes it fuse less shows here, without a GPU. The plan is that for CPUs: for GPUs it fuses by other rules.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch._functorch.aot_autograd import make_boxed_func  # type: ignore[attr-defined]
from torch._inductor import config as inductor
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.exc import InductorError
from torch._inductor.graph import GraphLowering
from torch._subclasses.fake_tensor import FakeTensorMode

from morphmlp.benchmarks.step_bytes import Moved, block_inputs, network_without_data
from morphmlp.config import ExperimentConfig
from morphmlp.models.fused.form import as_fused


class _PlannedError(Exception):
    """Ends a compilation where its kernels are planned."""


@dataclass(frozen=True, kw_only=True)
class PlannedBlock:
    """What a compiled block moves."""

    forward: Moved
    backward: Moved

    @property
    def whole(self) -> Moved:
        """Both."""
        return self.forward + self.backward


def compiled_block_bytes(config: ExperimentConfig, *, clips: int, in_16_bit: bool) -> list[PlannedBlock]:
    """One block of each stage, compiled as `execution.compile: blocks` does."""
    network = network_without_data(config)
    if config.execution.kernels == "triton":
        as_fused(network)
    with FakeTensorMode(allow_non_fake_inputs=True):
        inputs = block_inputs(network, clips=clips, in_16_bit=in_16_bit)
        return [
            _counted(blocks[-1], x, in_16_bit=in_16_bit)
            for blocks, x in zip(network.stage_blocks(), inputs, strict=True)
        ]


def _counted(block: nn.Module, x: Tensor, *, in_16_bit: bool) -> PlannedBlock:
    torch._dynamo.reset()
    with _plans() as planned:
        compiled = torch.compile(block, backend=_planning, dynamic=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=in_16_bit):
            y = compiled(x.detach().requires_grad_())
        torch.autograd.backward(y, torch.empty_like(y))
    torch._dynamo.reset()
    forward, backward = planned
    return PlannedBlock(forward=forward, backward=backward)


@contextmanager
def _plans() -> Iterator[list[Moved]]:
    """Collect the plans of all graphs that are compiled, and compile none of them."""
    planned: list[Moved] = []

    def plan(graph: GraphLowering) -> None:
        graph.codegen()
        size, nodes, _ = graph.count_bytes()
        planned.append(Moved(bytes=size, kernels=sum(count > 0 for _, count in nodes)))
        raise _PlannedError

    with (
        mock.patch.object(GraphLowering, "compile_to_module", plan),
        inductor.patch(fx_graph_cache=False),
        functorch.patch(enable_autograd_cache=False),
    ):
        yield planned


def _planning(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
    """A backend of `torch.compile` that plans as Inductor and runs the graph as it is."""

    def inner(part: torch.fx.GraphModule, inputs: Sequence[Tensor], **options: Any) -> Any:
        try:
            compile_fx_inner(part, inputs, **options)
        except InductorError as error:
            if not isinstance(error.inner_exception, _PlannedError):
                raise
        return make_boxed_func(part.forward)

    return compile_fx(graph, list(inputs), inner_compile=inner)
