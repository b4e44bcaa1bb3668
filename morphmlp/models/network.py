"""What training, scoring and weights need of a network, whichever it is.

A network has four stages of blocks; its maps have strides 4, 8, 16 and 32. Blocks are what is recomputed and compiled.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch.utils.checkpoint import checkpoint

from morphmlp.config.clip import PIXEL_MEAN, PIXEL_STD
from morphmlp.config.shapes import LARGE_MAP_BYTES, NUM_STAGES
from morphmlp.models.morphfc import FrameMorphFC, SpatialMorphFC, TemporalMorphFC

COMPILED_VARIANTS = 64
"""Most forms of a block that are compiled, instead of PyTorch's 8. There are up to 24: of four stages, in training with
and without drop path and in evaluation, for one clip and for more."""


class Network(nn.Module):
    """A network as the training loop, the scorer and the readers of weights know it.

    It takes normalised clips, `[b 3 t h w]`, or images, `[b 3 h w]`, of any height and width, and gives one tensor or
    a tuple of them, the main one first. Its weights are fresh; parameters have the names of the published ones.
    """

    def __init__(self, *, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.input_shape = input_shape
        """Shape of one training input: channels, frames of a clip, rows, columns."""
        self.is_image = len(input_shape) == 3
        """Whether it takes images, which have no axis of time."""
        self.pixel_mean, self.pixel_std = PIXEL_MEAN, PIXEL_STD
        """Normalisation of pixels in [0, 1] that the input has had; a task sets its experiment's."""
        self.recomputed_stages: frozenset[int] = frozenset()
        self.most_map_bytes: int | None = None
        """Most bytes of a map inside a block: so many clips, one at least, go through a stage's blocks at once."""
        self._compiled = False

    @abstractmethod
    def stage_blocks(self) -> tuple[nn.ModuleList | nn.Sequential, ...]:
        """The blocks of the four stages."""

    @abstractmethod
    def forward_features(self, clips: Tensor) -> tuple[Tensor, ...]:
        """The maps at the ends of the four stages, channels first."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the initial weights anew; call it after `to_empty` of a model built on meta."""

    def fit_to(self, device: torch.device) -> Self:
        """Move the network to the device that it runs on.

        On CPUs, maps inside its blocks stay small from now on: caches hold more of them, and the system needn't clear
        the pages of each anew. Their layers compute with maps as they lie. Results are the same but for rounding.
        """
        on_cpu = device.type == "cpu"
        self.most_map_bytes = LARGE_MAP_BYTES if on_cpu else None
        for layer in self.modules():
            if isinstance(layer, SpatialMorphFC | FrameMorphFC | TemporalMorphFC):
                layer.on_cpu = on_cpu
        return self.to(device)

    def set_activation_checkpointing(self, stages: Collection[int]) -> None:
        """Recompute the blocks of these stages (1-4) in the backward pass instead of keeping their activations.

        Gradients stay the same, bit for bit.

        Raises:
            ValueError: There is no such stage.
        """
        if unknown := sorted(set(stages) - set(range(1, NUM_STAGES + 1))):
            raise ValueError(f"no stage {unknown}; there are 1-{NUM_STAGES}")
        self.recomputed_stages = frozenset(stages)

    def compile_blocks(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile each block at its first call, once for all blocks of a stage and for any number of clips.

        At other sizes than the training input's, as of whole images, blocks run as they are: each size would compile
        anew. Parameter names and drop-path draws stay the same; sums may round differently. Call it before the model is
        wrapped for data parallelism. What this process compiles from then on has its backward pass outside autocast.

        Args:
            backend: As in `torch.compile`; `inductor` needs a C++ compiler on a CPU.
        """
        torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, COMPILED_VARIANTS)
        # By default the compiler takes the backward pass to run under the forward pass's autocast, so that what the
        # network computes in fp32 would have its gradients in 16 bit.
        functorch.backward_pass_autocast = "off"
        for block in chain.from_iterable(self.stage_blocks()):
            block.compile(backend=backend, dynamic=False)
        self._compiled = True

    def run_block(self, block: nn.Module, x: Tensor, *rest: Tensor | None, stage: int, size: tuple[int, ...]) -> Tensor:
        """The map after a block of a stage (1-4), recomputed in the backward pass where this was asked for.

        `size` are rows and columns of the network's input.
        """
        compiled = self._compiled and size == self.input_shape[-2:]
        if compiled:
            # A micro-batch with broken videos is smaller; it shall not compile anew.
            torch._dynamo.maybe_mark_dynamic(x, 0)
            for tensor in rest:
                if tensor is not None:
                    torch._dynamo.maybe_mark_dynamic(tensor, 1)
        run = block if compiled or not self._compiled else block.forward
        if stage in self.recomputed_stages and self.training and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(run, x, *rest, use_reentrant=False, preserve_rng_state=False)
            return recomputed
        y: Tensor = run(x, *rest)
        return y
