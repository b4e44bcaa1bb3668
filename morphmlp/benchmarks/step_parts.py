"""Which part of a network an operation of a training step belongs to, forward and backward.

Parts are what a reader of the architecture knows: of each stage the temporal layers, the spatial layers, the channel
MLPs and the norms, and what is in no stage by its own name. Forward, a part is at work between its module's call and
return. Backward, autograd's numbers say it: it numbers operations in the order of the forward pass, and what undoes one
has its number.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from morphmlp.models.network import Network

OTHER = "other"
"""Loss, clipping, sums of gradients, copies."""
MARK = "part: "
"""Before a part's name, in a trace."""
_INSIDE = {
    "t_norm1": "norms",
    "norm1": "norms",
    "norm2": "norms",
    "t_fc": "temporal",
    "fc": "spatial",
    "mlp": "channels",
}
"""Modules of a block, and what they are called."""
_SUMS = "sums"
"""What a block does itself: it adds."""


class PartWatch:
    """Follows a network through its forward passes."""

    def __init__(self) -> None:
        self._open: list[tuple[str, Any]] = []
        self._numbers: list[int] = []
        self._from: list[str] = []

    def enter(self, part: str) -> None:
        """A part begins."""
        mark = record_function(MARK + part)
        mark.__enter__()  # type: ignore[no-untyped-call]
        self._open.append((part, mark))
        self._note(part)

    def leave(self) -> None:
        """It ends: the one around it continues."""
        _, mark = self._open.pop()
        mark.__exit__(None, None, None)
        self._note(self._open[-1][0] if self._open else OTHER)

    def now(self) -> str:
        """The part at work in this thread."""
        if torch._C._current_graph_task_id() == -1:  # no backward pass
            return self._open[-1][0] if self._open else OTHER
        node = torch._C._current_autograd_node()
        return OTHER if node is None else self.of_number(node._sequence_nr())

    def of_number(self, number: int) -> str:
        """The part that made the operation of this number; sums of gradients, which have none, belong to none."""
        place = bisect_right(self._numbers, number) - 1
        return OTHER if place < 0 or number >= _NO_NUMBER else self._from[place]

    def _note(self, part: str) -> None:
        if torch._C._current_graph_task_id() == -1:  # what is recomputed has another thread's numbers
            self._numbers.append(torch._C._autograd._get_sequence_nr())
            self._from.append(part)


_NO_NUMBER = 2**63


@contextmanager
def parts_watched(network: Network, *, inside_blocks: bool) -> Iterator[PartWatch]:
    """Watch a network; `inside_blocks`: also the layers of its blocks, which mustn't be compiled then."""
    watch = PartWatch()
    handles = []

    def follow(module: nn.Module, part: str) -> None:
        handles.append(module.register_forward_pre_hook(lambda *_: watch.enter(part)))
        handles.append(module.register_forward_hook(lambda *_: watch.leave()))

    staged = {id(block) for blocks in network.stage_blocks() for block in blocks}
    for name, module in network.named_children():
        if not any(id(inner) in staged for inner in module.modules()):
            follow(module, name)
    if inside_blocks:
        for stage, blocks in enumerate(network.stage_blocks(), start=1):
            for block in blocks:
                for name, module in block.named_children():
                    follow(module, f"stage {stage}: {_INSIDE.get(name, name)}")
    run_block = network.run_block

    def watched(block: nn.Module, x: Tensor, *rest: Tensor | None, stage: int, size: tuple[int, ...]) -> Tensor:
        watch.enter(f"stage {stage}: {_SUMS}" if inside_blocks else f"stage {stage}")
        try:
            return run_block(block, x, *rest, stage=stage, size=size)
        finally:
            watch.leave()

    network.run_block = watched  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        del network.run_block
        for handle in handles:
            handle.remove()
