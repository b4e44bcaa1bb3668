"""A network whose blocks run in fused kernels."""

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import TypeVar, cast

from jaxtyping import Float
from torch import Tensor, nn

from morphmlp.models.backbone import Block
from morphmlp.models.fused.channel_ops import MOST_CHANNELS
from morphmlp.models.fused.layers import channel_unit, linear, norm, weighted_sum
from morphmlp.models.fused.rows import Rows
from morphmlp.models.morphfc import FrameMorphFC, Mlp, SpatialMorphFC, TemporalMorphFC, mix
from morphmlp.models.norm import LayerNorm
from morphmlp.models.tiling import Tiling
from morphmlp.models.weighted_branches import TokenBranch, branch_weights

Network = TypeVar("Network", bound=nn.Module)

LEAST_SEGMENT = 16
"""Rows of a clip and group, below which the kernel that makes a branch's gradients would work on padding."""


def as_fused(network: Network) -> Network:
    """The same module, whose blocks run in fused kernels from now on: the same parameters, the same function.

    Needs Triton and a GPU when it runs, not before.
    """
    for module in network.modules():
        if isinstance(module, Block):
            for inner in (module, *module.children()):
                inner.forward = MethodType(_FORWARDS[type(inner)], inner)
    return network


def _block(block: Block, x: Tensor, kept: Tensor | None = None) -> Tensor:
    spatial, channel = (None, None) if kept is None else kept
    around = block.skip == "published"
    if block.t_fc is None:
        y, _ = _space(block, x, spatial)
    elif block.order == "parallel":
        normed, _, (x, base) = block.t_norm1(x, uses=2)
        y, _ = _space(block, x, spatial, base=block.t_fc(normed, base))
    elif block.order == "temporal_first":
        normed, _, (base, *skipped) = block.t_norm1(x, uses=2 if around else 1)
        y, _ = _space(block, block.t_fc(normed, base), spatial, base=skipped[0] if around else None)
    else:
        u, skipped = _space(block, x, spatial, others=1 if around else 0)
        normed, _, bases = block.t_norm1(u, uses=0 if around else 1)
        y = block.t_fc(normed, *skipped, *bases)
    z: Tensor = block.mlp(y, block.norm2, channel)
    return z


def _space(
    block: Block, x: Tensor, factor: Tensor | None, *, base: Tensor | None = None, others: int = 0
) -> tuple[Tensor, Sequence[Tensor]]:
    """The spatial layer's result times `factor`, added to `base` or else to the map; and the map for other uses."""
    with_frame = _summed_branches(cast(SpatialMorphFC | FrameMorphFC, block.fc), x) is not None
    normed, frame, used = block.norm1(x, uses=others + (base is None), with_frame=with_frame)
    if base is None:
        base, *used = used
    return block.fc(normed, base, factor, frame), used


def _temporal(layer: TemporalMorphFC, x: Tensor, base: Tensor) -> Tensor:
    """The layer's result, added to `base`."""
    mixed = linear(x, layer.mlp_t, Rows.of_time(x, groups=layer.groups))
    return linear(mixed, layer.proj, _tokens(x), base=base)


def _spatial(
    layer: SpatialMorphFC | FrameMorphFC, x: Tensor, base: Tensor, factor: Tensor | None, frame: Tensor
) -> Tensor:
    """The layer's result times a factor for each clip, added to `base`; `frame` is the mean of its input over time."""
    branches = _summed_branches(layer, x)
    if branches is None:
        mixed = mix(layer, x)
    else:
        assert layer.reweight is not None
        linears, rows = [branch.fc for branch in branches], [Rows.of_chunks(x, branch.tiling) for branch in branches]
        weights = branch_weights(frame, branches, layer.mlp_c, layer.reweight)
        if layer.mlp_c is not None:
            linears.append(layer.mlp_c)
            rows.append(_tokens(x))
        mixed = weighted_sum(x, weights, linears, rows)
    return linear(mixed, layer.proj, _tokens(x), base=base, factor=factor)


def _summed_branches(
    layer: SpatialMorphFC | FrameMorphFC, x: Float[Tensor, "b t h w c"]
) -> Sequence[TokenBranch] | None:
    """The layer's branches over tokens, if they are summed by a fused kernel; else they run as in the present form."""
    branches = [
        TokenBranch(tiling, fc)
        for fc, by_columns in layer.token_branches()
        if (tiling := Tiling.of(layer.chunks, *x.shape[2:4], groups=layer.groups, by_columns=by_columns))
    ]
    long_enough = all(Rows.of_chunks(x, branch.tiling).in_a_segment >= LEAST_SEGMENT for branch in branches)
    if layer.reweight is None or len(branches) < len(layer.token_branches()) or not long_enough:
        return None
    return branches


def _mlp(layer: Mlp, x: Tensor, before: nn.LayerNorm, factor: Tensor | None) -> Tensor:
    """The map, and the layer's result on the normalised map times a factor for each clip."""
    if x.shape[-1] <= MOST_CHANNELS:
        return channel_unit(x, before, layer, factor=factor)
    normed, _, (base,) = before(x, uses=1)
    hidden = linear(normed, layer.fc1, _tokens(x))
    return linear(hidden, layer.fc2, _tokens(x), base=base, factor=factor, gelu=True)


def _norm(
    layer: LayerNorm, x: Tensor, *, uses: int = 0, with_frame: bool = False
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    return norm(x, layer, uses=uses, with_frame=with_frame)


def _tokens(x: Float[Tensor, "b t h w c"]) -> Rows:
    return Rows.of_tokens(x.shape[1] * x.shape[2] * x.shape[3])


_FORWARDS: Mapping[type[nn.Module], Callable[..., object]] = {
    Block: _block,
    TemporalMorphFC: _temporal,
    SpatialMorphFC: _spatial,
    FrameMorphFC: _spatial,
    Mlp: _mlp,
    LayerNorm: _norm,
}
