"""The MorphFC layers: linear layers over tokens and channels at once.

Channels-last maps in and out: `b` clips, `t` time steps, `h w` rows and columns, `c` channels. Inside,
tokens are cut into `n` chunks of `l` tokens and channels into `g` groups of `s`; one linear layer mixes
the l x s values of a chunk and a group.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.nn import functional

from morphmlp.config.shapes import NUM_STAGES, Chunks
from morphmlp.config.values import Branch
from morphmlp.models.sizes import ALL_BRANCHES, REWEIGHT_REDUCTION
from morphmlp.models.tiling import Tiling, as_wide
from morphmlp.models.weighted_branches import TokenBranch, weighted_branches

# The frame as a line of tokens, row after row or column after column; each pattern above its inverse.
TO_ROWS = "b t h w c -> b t (h w) c"
FROM_ROWS = "b t (h w) c -> b t h w c"

TO_COLUMNS = "b t h w c -> b t (w h) c"
FROM_COLUMNS = "b t (w h) c -> b t h w c"

# Chunks of consecutive tokens. Channels are group-major outside (c = g, s) and token-major inside the layer (l, s).
TO_CHUNKS = "b t (n l) (g s) -> b t n g (l s)"
FROM_CHUNKS = "b t n g (l s) -> b t (n l) (g s)"

# Chunks of tokens that lie n apart. At 7x7 tokens and l = 49 (n = 1) they are the consecutive ones; above 224 px not.
TO_STRIDED_CHUNKS = "b t (l n) (g s) -> b t g n (l s)"
FROM_STRIDED_CHUNKS = "b t g n (l s) -> b t (l n) (g s)"

# Chunks that are windows, i x j of them, of p x q tokens: row after row or column after column.
TO_WINDOWS = "b t (i p) (j q) (g s) -> b t i j g (p q s)"
FROM_WINDOWS = "b t i j g (p q s) -> b t (i p) (j q) (g s)"

TO_COLUMN_WINDOWS = "b t (i p) (j q) (g s) -> b t i j g (q p s)"
FROM_COLUMN_WINDOWS = "b t i j g (q p s) -> b t (i p) (j q) (g s)"

# All time steps of one place.
TO_TIME = "b t h w (g s) -> b h w g (t s)"
FROM_TIME = "b h w g (t s) -> b t h w (g s)"


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them, on the last axis."""

    def __init__(self, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: Float[Tensor, "*sites c"]) -> Float[Tensor, "*sites d"]:
        """Map the channels of every site by itself."""
        y: Tensor = self.fc2(self.act(self.fc1(x)))
        return y


def mix_chunks(
    x: Float[Tensor, "b t h w c"], fc: nn.Linear, *, chunks: Chunks, groups: int, by_columns: bool = False
) -> Float[Tensor, "b t h w c"]:
    """One linear layer over the tokens of each chunk and the channels of each group.

    A map that the chunks don't divide is padded with zeros, whose places are cut off again: at the end of the line or
    of the map, or with `padded_side` on both sides. `by_columns`: for the height branch.
    """
    height, width = x.shape[2:4]
    tile = chunks.tile(height, width, by_columns=by_columns)
    if tile is not None:
        rows, columns = -height % tile[0], -width % tile[1]
        top, left = (rows // 2, columns // 2) if chunks.shape == "padded_side" else (0, 0)
        to, back = (TO_COLUMN_WINDOWS, FROM_COLUMN_WINDOWS) if by_columns else (TO_WINDOWS, FROM_WINDOWS)
        padded = functional.pad(x, (0, 0, left, columns - left, top, rows - top))
        mixed: Tensor = fc(rearrange(padded, to, p=tile[0], q=tile[1], g=groups))
        windows = rearrange(mixed, back, p=tile[0], q=tile[1], g=groups)
        return windows[:, :, top : top + height, left : left + width]
    line = rearrange(x, TO_COLUMNS if by_columns else TO_ROWS)
    strided = chunks.stage == NUM_STAGES
    to, back = (TO_STRIDED_CHUNKS, FROM_STRIDED_CHUNKS) if strided else (TO_CHUNKS, FROM_CHUNKS)
    if missing := -line.shape[2] % chunks.length:
        line = functional.pad(line, (0, 0, 0, missing))
    mixed = fc(rearrange(line, to, l=chunks.length, g=groups))
    line = rearrange(mixed, back, l=chunks.length, g=groups)[:, :, : height * width]
    return rearrange(line, FROM_COLUMNS if by_columns else FROM_ROWS, h=height, w=width)


class SpatialMorphFC(nn.Module):
    """MorphFC_s of stages 1-3: a height, a width and a channel branch, weighted per clip and channel.

    As published a chunk has as many tokens as there are channel `groups`, so every branch is one `channels` x
    `channels` layer. A chunk may be part of a row, a row, or several (stage 3: two rows of 14).

    With some of the branches only (an ablation) the layers of the others aren't there, and the weights are over those
    that are. A single one isn't weighted: its weight would always be 1, and the layer that makes it couldn't learn.
    """

    def __init__(
        self,
        channels: int,
        *,
        chunks: Chunks,
        groups: int | None = None,
        branches: Collection[Branch] = ALL_BRANCHES,
        weighted: bool = True,
    ) -> None:
        super().__init__()
        self.chunks = chunks
        self.groups = groups or chunks.length
        size = chunks.length * (channels // self.groups)
        self.mlp_h = nn.Linear(size, size) if "height" in branches else None
        self.mlp_w = nn.Linear(size, size) if "width" in branches else None
        self.mlp_c = nn.Linear(channels, channels) if "channel" in branches else None
        self.reweight = _reweight(channels, branches=len(branches)) if weighted else None
        self.proj = nn.Linear(channels, channels)
        self.on_cpu = False
        """Whether it runs on a CPU, which `Network.fit_to` sets."""

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Mix tokens within each frame."""
        y: Tensor = self.proj(mix(self, x))
        return y

    def token_branches(self) -> list[tuple[nn.Linear, bool]]:
        """Layers over tokens, each with whether it goes by columns, in the order of their weights."""
        return [(fc, by_columns) for fc, by_columns in ((self.mlp_h, True), (self.mlp_w, False)) if fc is not None]


class FrameMorphFC(nn.Module):
    """MorphFC_s of stage 4: one branch over the whole frame and a channel branch.

    Where it was made for more tokens than a chunk has, chunks are strided, as in the published source.

    Of `branches`, `height` or `width` stand for the one over the frame; see `SpatialMorphFC`.
    """

    def __init__(
        self,
        channels: int,
        *,
        chunks: Chunks,
        branches: Collection[Branch] = ALL_BRANCHES,
        weighted: bool = True,
    ) -> None:
        super().__init__()
        self.chunks = chunks
        self.groups = chunks.length
        tokens, channel = "height" in branches or "width" in branches, "channel" in branches
        self.mlp_h = nn.Linear(channels, channels) if tokens else None
        self.mlp_c = nn.Linear(channels, channels) if channel else None
        self.reweight = _reweight(channels, branches=tokens + channel) if weighted else None
        self.proj = nn.Linear(channels, channels)
        self.on_cpu = False
        """Whether it runs on a CPU, which `Network.fit_to` sets."""

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Mix tokens within each frame."""
        y: Tensor = self.proj(mix(self, x))
        return y

    def token_branches(self) -> list[tuple[nn.Linear, bool]]:
        """As in `SpatialMorphFC`."""
        return [] if self.mlp_h is None else [(self.mlp_h, False)]


class TemporalMorphFC(nn.Module):
    """MorphFC_t: all time steps of one place and one channel group meet in one layer, then a projection.

    `groups` divides `channels`; the layer has `tokens` x (`channels` / `groups`) inputs, which is `channels`
    where groups and tokens are equal.
    """

    def __init__(self, channels: int, *, tokens: int, groups: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.groups = groups
        size = tokens * (channels // groups)
        self.mlp_t = nn.Linear(size, size)
        self.proj = nn.Linear(channels, channels)
        self.on_cpu = False
        """As in `SpatialMorphFC`."""

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Mix the time steps of each place."""
        copied = self.on_cpu and not torch.compiler.is_compiling()
        rearranged = _copied_wide if copied else rearrange
        sizes = {"g": self.groups, "t": self.tokens}
        mixed = self.mlp_t(rearranged(x, TO_TIME, **sizes))
        y: Tensor = self.proj(rearranged(mixed, FROM_TIME, **sizes))
        return y


def _copied_wide(x: Tensor, pattern: str, *, g: int, t: int) -> Tensor:
    """`rearrange` to or from times, as CPUs copy fastest."""
    y: Tensor = _WideCopy.apply(x, pattern, (g, t))
    return y


class _WideCopy(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pattern: str, sizes: tuple[int, int]) -> Tensor:
        ctx.inverse, ctx.sizes = (FROM_TIME if pattern == TO_TIME else TO_TIME), sizes
        groups, times = sizes
        size = x.shape[-1] // (groups if pattern == TO_TIME else times)
        wide = as_wide(x.contiguous(), size)
        return rearrange(wide, pattern, g=groups, t=times).contiguous().view(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _copied_wide(gradient, ctx.inverse, g=ctx.sizes[0], t=ctx.sizes[1]), None, None


def mix(layer: SpatialMorphFC | FrameMorphFC, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
    """The sum of a layer's branches, in whichever order of steps takes fewer bytes."""
    if layer.reweight is not None:
        branches = [
            TokenBranch(tiling, fc)
            for fc, by_columns in layer.token_branches()
            if (tiling := Tiling.of(layer.chunks, *x.shape[2:4], groups=layer.groups, by_columns=by_columns))
        ]
        if len(branches) == len(layer.token_branches()):
            return weighted_branches(x, branches, layer.mlp_c, layer.reweight, on_cpu=layer.on_cpu)
    return mix_as_published(layer, x)


def mix_as_published(layer: SpatialMorphFC | FrameMorphFC, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
    """The same, step by step as the published source computes it."""
    branches = [
        mix_chunks(x, fc, chunks=layer.chunks, groups=layer.groups, by_columns=by_columns)
        for fc, by_columns in layer.token_branches()
    ]
    if layer.mlp_c is not None:
        branches.append(layer.mlp_c(x))
    return branch_sum(branches, layer.reweight)


def _reweight(channels: int, *, branches: int) -> Mlp | None:
    """What weighs the branches; None for a single one, whose weight is always 1."""
    return None if branches == 1 else Mlp(channels, channels // REWEIGHT_REDUCTION, branches * channels)


def branch_sum(branches: Sequence[Float[Tensor, "b t h w c"]], reweight: Mlp | None) -> Float[Tensor, "b t h w c"]:
    """Sum branches, with weights that add to 1 for each clip and channel where there is something to weigh them.

    The paper's formula adds the branches; its ablation (Table 9) and the published source, whose checkpoints load here,
    weight them: 79.6 against 79.3 % on ImageNet.
    `reweight` maps the pooled sum, `[b, c]`, to `[b, c * len(branches)]`.
    """
    if reweight is None:
        return sum(branches[1:], start=branches[0])
    pooled = torch.stack([reduce(branch, "b t h w c -> b c", "mean") for branch in branches]).sum(dim=0)
    weights = rearrange(reweight(pooled), "b (c k) -> k b 1 1 1 c", k=len(branches)).softmax(dim=0)
    total: Tensor = weights[0] * branches[0]
    for weight, branch in zip(weights[1:], branches[1:], strict=True):
        total = total + weight * branch
    return total
