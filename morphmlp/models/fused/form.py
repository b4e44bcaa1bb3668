"""A network whose blocks run in fused kernels."""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from morphmlp.models.backbone import Block
from morphmlp.models.fused.layers import linear, weighted_sum
from morphmlp.models.fused.rows import Rows
from morphmlp.models.morphfc import FrameMorphFC, Mlp, SpatialMorphFC, TemporalMorphFC, mix
from morphmlp.models.tiling import Tiling
from morphmlp.models.weighted_branches import TokenBranch, with_weights

Network = TypeVar("Network", bound=nn.Module)

LEAST_SEGMENT = 16
"""Rows of a clip and group, below which the kernel that makes a branch's gradients would work on padding."""


def as_fused(network: Network) -> Network:
    """The same module, whose blocks run in fused kernels from now on: the same parameters, the same function.

    Needs Triton and a GPU when it runs, not before.
    """
    for module in network.modules():
        if isinstance(module, Block):
            for inner in (module, module.t_fc, module.fc, module.mlp):
                if inner is not None:
                    inner.forward = MethodType(_FORWARDS[type(inner)], inner)
    return network


def _block(block: Block, x: Tensor, kept: Tensor | None = None) -> Tensor:
    spatial, channel = (None, None) if kept is None else kept
    if block.t_fc is None:
        y = block.fc(block.norm1(x), x, spatial)
    elif block.order == "parallel":
        y = block.fc(block.norm1(x), block.t_fc(block.t_norm1(x), x), spatial)
    elif block.order == "temporal_first":
        u = block.t_fc(block.t_norm1(x), x)
        y = block.fc(block.norm1(u), x if block.skip == "published" else u, spatial)
    else:
        u = block.fc(block.norm1(x), x, spatial)
        y = block.t_fc(block.t_norm1(u), x if block.skip == "published" else u)
    z: Tensor = block.mlp(block.norm2(y), y, channel)
    return z


def _temporal(layer: TemporalMorphFC, x: Tensor, base: Tensor | None = None) -> Tensor:
    """The layer's result, added to `base`."""
    mixed = linear(x, layer.mlp_t, Rows.of_time(x, groups=layer.groups))
    return linear(mixed, layer.proj, _tokens(x), base=base)


def _spatial(
    layer: SpatialMorphFC | FrameMorphFC, x: Tensor, base: Tensor | None = None, factor: Tensor | None = None
) -> Tensor:
    """The layer's result times a factor for each clip, added to `base`."""
    return linear(_mixed(layer, x), layer.proj, _tokens(x), base=base, factor=factor)


def _mixed(layer: SpatialMorphFC | FrameMorphFC, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
    branches = [
        TokenBranch(tiling, fc)
        for fc, by_columns in layer.token_branches()
        if (tiling := Tiling.of(layer.chunks, *x.shape[2:4], groups=layer.groups, by_columns=by_columns))
    ]
    rows = [Rows.of_chunks(x, branch.tiling) for branch in branches]
    long_enough = all(branch_rows.in_a_segment >= LEAST_SEGMENT for branch_rows in rows)
    if layer.reweight is None or len(branches) < len(layer.token_branches()) or not long_enough:
        return mix(layer, x)
    linears = [branch.fc for branch in branches]
    if layer.mlp_c is not None:
        linears.append(layer.mlp_c)
        rows.append(_tokens(x))
    x, weights = with_weights(x, branches, layer.mlp_c, layer.reweight)
    return weighted_sum(x, weights, linears, rows)


def _mlp(layer: Mlp, x: Tensor, base: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
    """As `_spatial`."""
    hidden = linear(x, layer.fc1, _tokens(x))
    return linear(hidden, layer.fc2, _tokens(x), base=base, factor=factor, gelu=True)


def _tokens(x: Float[Tensor, "b t h w c"]) -> Rows:
    return Rows.of_tokens(x.shape[1] * x.shape[2] * x.shape[3])


_FORWARDS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    Block: _block,
    TemporalMorphFC: _temporal,
    SpatialMorphFC: _spatial,
    FrameMorphFC: _spatial,
    Mlp: _mlp,
}
