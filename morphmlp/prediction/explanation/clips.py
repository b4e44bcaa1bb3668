"""What a network did with some clips, read off in one pass: Grad-CAM, the weights of branches, the mixing of moments.

Grad-CAM (Selvaraju et al., 2017) over tokens of time and space: the map at the end of a stage, each channel weighed by
the mean over all tokens of the gradient of a class's logit, summed over channels, without what speaks against it. Of
the last stage it is the map after the last norm, which the head averages: so a token's value is just what it adds to
the logit. (Before the norm, which takes no notice of a token's length, no token's gradient sees the token itself.)
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from morphmlp.config.shapes import NUM_STAGES
from morphmlp.models import MorphMLP
from morphmlp.models.backbone import Backbone, Block
from morphmlp.models.morphfc import FrameMorphFC, SpatialMorphFC, TemporalMorphFC
from morphmlp.models.segmentation.network import MorphMLPSegmentation


@dataclass(frozen=True, kw_only=True)
class ClipExplanations:
    """What a network did with `b` clips; blocks are named by stage and number, as in `3.2`."""

    logits: Float[Tensor, "b k *map"]
    maps: Float[Tensor, "b t h w"]
    """Evidence for the class, at least 0, on the tokens of the stage; of images `t` is 1."""
    branch_weights: Mapping[str, Float[Tensor, "k b c"]]
    """By block, for each clip and channel: what the spatial layer's branches count, in the order of `branch_names`;
    they add to 1. Blocks whose branches aren't weighed are left out."""
    time_shares: Mapping[str, Float[Tensor, "b t u"]]
    """By block: how much of a temporal layer's result at `t` comes from moment `u`; they add to 1 over `u`, or are all
    0 where the layer gives nothing. Empty for networks without temporal layers."""


def explain_clips(network: MorphMLP, clips: Float[Tensor, "b c *t h w"], *, stage: int, label: int) -> ClipExplanations:
    """Look at the pass of some clips, for one class and the end of a stage (1-4).

    The network is in evaluation; its parameters take no gradients from now on.
    """
    last = network.norm if stage == NUM_STAGES else network.stage_blocks()[stage - 1][-1]
    return _explained(network, clips, last, lambda logits: logits[:, label].sum())


def explain_scenes(
    network: MorphMLPSegmentation, images: Float[Tensor, "b 3 h w"], *, stage: int, label: int, everywhere: bool
) -> ClipExplanations:
    """Look at the pass of some images through a network that segments (Vinogradova et al., 2020: Seg-Grad-CAM).

    The map is what the decoder gets of a stage (1-4), after its norm. The score is the sum of the class's logits where
    it is the answer; with `everywhere`, as for a class that nothing is, over the whole image.
    """

    def score(logits: Tensor) -> Tensor:
        of_class = logits[:, label]
        return of_class.sum() if everywhere else of_class[logits.argmax(dim=1) == label].sum()

    return _explained(network, images, network.norms[stage - 1], score)


def _explained(
    network: Backbone, clips: Tensor, last: nn.Module, score: Callable[[Tensor], Tensor]
) -> ClipExplanations:
    """Grad-CAM of what the layer `last` gives for a score of the logits, and what the blocks did meanwhile."""
    network.requires_grad_(False)
    found = _Found()
    with ExitStack() as hooks, torch.enable_grad():
        for name, block in named_blocks(network).items():
            for module, hook in found.hooks_of(name, block):
                hooks.callback(module.register_forward_hook(hook).remove)
        hooks.callback(last.register_forward_hook(found.begin_gradient).remove)
        logits = network(clips)
        (leaf,) = found.leaves
        (gradient,) = torch.autograd.grad(score(logits), leaf)
    if leaf.ndim == 4:  # an image has one time step
        leaf, gradient = leaf[:, None], gradient[:, None]
    return ClipExplanations(
        logits=logits.detach().float(),
        maps=grad_cam(leaf.detach(), gradient).float(),
        branch_weights=found.branch_weights,
        time_shares=found.time_shares,
    )


def grad_cam(values: Float[Tensor, "b t h w c"], gradient: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w"]:
    """The sum of channels, each weighed by the mean of its gradient; what is below 0 is left out."""
    weights = reduce(gradient, "b t h w c -> b 1 1 1 c", "mean")
    return (weights * values).sum(dim=-1).relu()


def named_blocks(network: Backbone) -> dict[str, Block]:
    """The blocks by stage and number, both from 1."""
    return {
        f"{stage}.{number}": block
        for stage, blocks in enumerate(network.stage_blocks(), start=1)
        for number, block in enumerate(blocks, start=1)
        if isinstance(block, Block)
    }


def branch_names(layer: SpatialMorphFC | FrameMorphFC) -> tuple[str, ...]:
    """The layer's branches, in the order of their weights; `frame` is stage 4's one over all tokens."""
    tokens = ("frame",) if isinstance(layer, FrameMorphFC) else ("height", "width")
    there = (layer.mlp_h, None if isinstance(layer, FrameMorphFC) else layer.mlp_w)
    names = tuple(name for name, fc in zip(tokens, there, strict=False) if fc is not None)
    return names if layer.mlp_c is None else (*names, "channel")


def time_shares(layer: TemporalMorphFC, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t u"]:
    """How much of a temporal layer's result at each moment comes from each moment of what it takes, `x`.

    The layer is linear, so that its result is a sum of one addend for each moment (and of biases, which belong to
    none). A share is the addend's length over channels, averaged over places, over the sum of these: what Kobayashi et
    al. (2020) call norm-based analysis. Addends may cancel each other, which lengths don't show.
    """
    weight = rearrange(layer.mlp_t.weight, "(t s) (u r) -> u t s r", t=layer.tokens, u=layer.tokens)
    lengths = []
    for moment, part in zip(weight, x.unbind(1), strict=True):
        groups = rearrange(part, "b h w (g r) -> b h w g r", g=layer.groups)
        mixed = torch.einsum("tsr,bhwgr->bthwgs", moment, groups)
        addend = functional.linear(rearrange(mixed, "b t h w g s -> b t h w (g s)"), layer.proj.weight)
        lengths.append(reduce(addend.norm(dim=-1), "b t h w -> b t", "mean"))
    found = torch.stack(lengths, dim=2)
    total = found.sum(dim=2, keepdim=True)
    return torch.where(total > 0, found / total.clamp_min(torch.finfo(found.dtype).tiny), 0.0)


@dataclass(frozen=True)
class _Found:
    """What hooks on a network's layers find."""

    branch_weights: dict[str, Tensor] = field(default_factory=dict)
    time_shares: dict[str, Tensor] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)

    def hooks_of(self, name: str, block: Block) -> list[tuple[nn.Module, Callable[..., None]]]:
        """Layers of a block with the hooks that they need."""
        found: list[tuple[nn.Module, Callable[..., None]]] = []
        layer = block.fc
        assert isinstance(layer, SpatialMorphFC | FrameMorphFC)
        if layer.reweight is not None:
            found.append((layer.reweight, partial(self._scores, name, len(branch_names(layer)))))
        if isinstance(block.t_fc, TemporalMorphFC):
            found.append((block.t_fc, partial(self._moments, name)))
        return found

    def begin_gradient(self, layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> Tensor:
        """Let the gradient begin with a layer's result: nothing before it keeps anything."""
        del layer, taken
        self.leaves.append(given.detach().requires_grad_())
        return self.leaves[-1]

    def _scores(self, name: str, count: int, layer: nn.Module, taken: tuple[Tensor, ...], scores: Tensor) -> None:
        del layer, taken
        shares = rearrange(scores.detach().float(), "b (c k) -> k b c", k=count).softmax(dim=0)
        self.branch_weights[name] = shares

    def _moments(self, name: str, layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        del given
        assert isinstance(layer, TemporalMorphFC)
        with torch.no_grad():
            self.time_shares[name] = time_shares(layer, taken[0]).float()
