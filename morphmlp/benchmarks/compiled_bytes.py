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
from tabulate import tabulate
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch._functorch.aot_autograd import make_boxed_func  # type: ignore[attr-defined]
from torch._inductor import config as inductor
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.exc import InductorError
from torch._inductor.graph import GraphLowering
from torch._subclasses.fake_tensor import FakeTensorMode

from morphmlp.benchmarks.step_bytes import Form, Moved, block_inputs, network_without_data, step_bytes
from morphmlp.config import ExperimentConfig


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


@dataclass(frozen=True, kw_only=True)
class ComparedBlocks:
    """All blocks of a step against compiled ones in the published order of steps."""

    arithmetic: str
    form: str
    """That of the network, and whether its blocks are compiled."""
    bytes: int
    published: int
    """Bytes of those."""


def compare_blocks(config: ExperimentConfig, *, clips: int) -> list[ComparedBlocks]:
    """Count compiled blocks and fused ones, in fp32 and in 16 bit; each stage's last block stands for all of it."""
    rows = []
    for arithmetic, in_16_bit in (("fp32", False), ("16 bit", True)):
        blocks: dict[str, Sequence[Moved]] = {
            f"{form}, compiled": [
                block.whole for block in compiled_block_bytes(config, clips=clips, in_16_bit=in_16_bit, form=form)
            ]
            for form in ("present", "published")
        }
        blocks["fused"] = step_bytes(config, clips=clips, in_16_bit=in_16_bit, form="fused").blocks
        of_step = {
            form: sum(depth * block.bytes for depth, block in zip(config.model.depths, stages, strict=True))
            for form, stages in blocks.items()
        }
        published = of_step.pop("published, compiled")
        rows += [
            ComparedBlocks(arithmetic=arithmetic, form=form, bytes=size, published=published)
            for form, size in of_step.items()
        ]
    return rows


def blocks_table(rows: Sequence[ComparedBlocks]) -> str:
    """A line for each form."""
    cells = [
        (
            row.arithmetic,
            row.form,
            f"{row.bytes / 1e9:.3g}",
            f"{row.published / 1e9:.3g}",
            f"{row.bytes / row.published:.3f}",
        )
        for row in rows
    ]
    headers = ("arithmetic", "blocks", "GB", "published, compiled: GB", "ratio")
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True, colalign=("left", "left", *["right"] * 3))


def compiled_block_bytes(
    config: ExperimentConfig, *, clips: int, in_16_bit: bool, form: Form | None = None
) -> list[PlannedBlock]:
    """One block of each stage, compiled as `execution.compile: blocks` does; by default in the experiment's form."""
    if form is None:
        form = "fused" if config.execution.kernels == "triton" else "present"
    network = network_without_data(config, form)
    with FakeTensorMode(allow_non_fake_inputs=True):
        inputs = block_inputs(network, clips=clips, in_16_bit=in_16_bit)
        network.compile_blocks(_planning)
        return [
            _counted(blocks[-1], x, in_16_bit=in_16_bit)
            for blocks, x in zip(network.stage_blocks(), inputs, strict=True)
        ]


def _counted(block: nn.Module, x: Tensor, *, in_16_bit: bool) -> PlannedBlock:
    torch._dynamo.reset()
    with _plans() as planned:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_16_bit):
            y = block(x.detach().requires_grad_())
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
