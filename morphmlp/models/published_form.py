"""The network computed step by step as published: the reference of its present form, in counts, benchmarks and tests.

The same parameters, the same function; each step reads and writes whole maps. Branches are computed, averaged, and read
again to be weighted; norms give fp32 under autocast; columns are gathered in two copies.
"""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import TypeVar, cast

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from morphmlp.models.backbone import Block
from morphmlp.models.morphfc import FrameMorphFC, SpatialMorphFC, TemporalMorphFC, mix_as_published
from morphmlp.models.norm import LayerNorm

Network = TypeVar("Network", bound=nn.Module)

TO_TIME = "b t h w (g s) -> b g h w (t s)"
FROM_TIME = "b g h w (t s) -> b t h w (g s)"


def as_published(network: Network) -> Network:
    """The same module, whose layers run as published from now on."""
    forwards: Mapping[type[nn.Module], Callable[..., Tensor]] = {
        SpatialMorphFC: _spatial,
        FrameMorphFC: _spatial,
        TemporalMorphFC: _temporal,
        Block: _block,
        LayerNorm: _norm,
    }
    for module in network.modules():
        if (forward := forwards.get(type(module))) is not None:
            module.forward = MethodType(forward, module)
    return network


def _spatial(layer: SpatialMorphFC | FrameMorphFC, x: Tensor) -> Tensor:
    return cast(Tensor, layer.proj(mix_as_published(layer, x)))


def _temporal(layer: TemporalMorphFC, x: Tensor) -> Tensor:
    mixed = layer.mlp_t(rearrange(x, TO_TIME, g=layer.groups))
    return cast(Tensor, layer.proj(rearrange(mixed, FROM_TIME, t=layer.tokens)))


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return functional.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _block(block: Block, x: Tensor, kept: Tensor | None = None) -> Tensor:
    def temporal(x: Tensor) -> Tensor:
        assert block.t_fc is not None
        return cast(Tensor, block.t_fc(block.t_norm1(x)))

    def spatial(x: Tensor) -> Tensor:
        y: Tensor = block.fc(block.norm1(x))
        return y if kept is None else y * kept[0]

    if block.t_fc is None:
        y = x + spatial(x)
    elif block.order == "parallel":
        y = x + temporal(x) + spatial(x)
    elif block.order == "temporal_first":
        u = x + temporal(x)
        y = (x if block.skip == "published" else u) + spatial(u)
    else:
        u = x + spatial(x)
        y = (x if block.skip == "published" else u) + temporal(u)
    channel = block.mlp(block.norm2(y))
    z: Tensor = y + (channel if kept is None else channel * kept[1])
    return z
