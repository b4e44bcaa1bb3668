"""The weighted sum of a spatial layer's branches, with the weights known before the branches.

Published is: compute the branches, average them over the clip, make the weights from the mean, read the branches again
for the weighted sum. But a branch is linear, so its mean is the layer applied to the mean of its inputs: a tiny
product. With the weights at hand each branch is scaled while it is put back into the map, and the channel branch, by
scaled weights, needs no map of its own. It is the same function; only rounding differs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import Function

from morphmlp.models import autocast
from morphmlp.models.tiling import Tiling, as_wide


class TokenBranch(NamedTuple):
    """A branch over the tokens of chunks."""

    tiling: Tiling
    fc: nn.Linear


def weighted_branches(
    x: Float[Tensor, "b t h w c"],
    tokens: Sequence[TokenBranch],
    channel: nn.Linear | None,
    reweight: nn.Module,
    *,
    on_cpu: bool = False,
) -> Float[Tensor, "b t h w c"]:
    """The sum of the branches, with weights that add to 1 for each clip and channel.

    Args:
        x: What the branches take.
        tokens: Branches over tokens, in the order of their weights.
        channel: The branch over channels, the last one.
        reweight: Maps the sum of the branches' means, `[b, c]`, to `[b, c * branches]`.
        on_cpu: In the order of steps that suits CPUs.
    """
    x, weights = with_weights(x, tokens, channel, reweight)
    with autocast.switched_off(x):
        linears = [*(branch.fc for branch in tokens), *([] if channel is None else [channel])]
        parameters = [parameter.to(x.dtype) for fc in linears for parameter in (fc.weight, fc.bias)]
        tilings = tuple(branch.tiling for branch in tokens)
        if torch.compiler.is_compiling():
            return _sum_of(x, weights, tilings, parameters)
        y: Tensor = _WeightedSum.apply(x, weights, tilings, _OnMaps if on_cpu else _OnChunks, *parameters)
        return y


def with_weights(
    x: Float[Tensor, "b t h w c"], tokens: Sequence[TokenBranch], channel: nn.Linear | None, reweight: nn.Module
) -> tuple[Float[Tensor, "b t h w c"], Float[Tensor, "k b c"]]:
    """The map as its branches take it, and their weights; see `weighted_branches`."""
    if autocast.is_on(x):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    x = x.contiguous()
    if torch.compiler.is_compiling():
        frame = x.mean(dim=1, keepdim=True, dtype=_exact(x))
    else:
        x, frame = _MeanFrame.apply(x)
    return x, branch_weights(frame, tokens, channel, reweight)


def branch_weights(
    frame: Float[Tensor, "b 1 h w c"], tokens: Sequence[TokenBranch], channel: nn.Linear | None, reweight: nn.Module
) -> Float[Tensor, "k b c"]:
    """The weights of branches, from the mean of their input over time."""
    count = len(tokens) + (channel is not None)
    with autocast.switched_off(frame):
        # In fp32 whatever the maps are: a few numbers a clip, whose rounding would weigh on every token.
        scores = rearrange(reweight(pooled_sum(frame, tokens, channel)), "b (c k) -> k b c", k=count)
        weights: Tensor = scores.softmax(dim=0)
        return weights


def pooled_sum(
    frame: Float[Tensor, "b 1 h w c"], tokens: Sequence[TokenBranch], channel: nn.Linear | None
) -> Float[Tensor, "b c"]:
    """The sum of the branches' means over the clip, from the mean of their input over time."""
    with autocast.switched_off(frame):
        means = []
        for tiling, fc in tokens:
            # The mean over a chunk's places of what the layer makes is what the mean of its rows makes.
            size = frame.shape[-1] // tiling.groups
            # Not by einops, which keeps a list of the kinds that it has seen: compiled code would be compiled anew.
            weight = fc.weight.to(frame).view(-1, size, fc.in_features).mean(dim=0)  # (l s) i -> s i
            bias = fc.bias.to(frame).view(-1, size).mean(dim=0)
            mean = nn.functional.linear(tiling.places(frame), weight, bias)
            means.append(rearrange(mean, "b g s -> b (g s)"))
        if channel is not None:
            mean = reduce(frame, "b 1 h w c -> b c", "mean")
            means.append(nn.functional.linear(mean, channel.weight.to(frame), channel.bias.to(frame)))
        return torch.stack(means).sum(dim=0)


def _exact(x: Tensor) -> torch.dtype:
    """In which sums over a map are kept."""
    return torch.promote_types(x.dtype, torch.float32)


def _scaled_weights_pay(x: Tensor) -> bool:
    """Whether the channel branch's weights for each clip are small next to the clip's map."""
    tokens = x.shape[1] * x.shape[2] * x.shape[3]
    return tokens >= 2 * x.shape[-1]


def _sum_of(x: Tensor, weights: Tensor, tilings: Sequence[Tiling], parameters: Sequence[Tensor]) -> Tensor:
    """The weighted sum as a compiler wants it, which fuses what stands apart here."""
    total: Tensor | None = None
    for index, tiling in enumerate(tilings):
        weight, bias = parameters[2 * index : 2 * index + 2]
        branch = tiling.join(nn.functional.linear(tiling.gather(x), weight, bias), x)
        scaled = branch * rearrange(weights[index], "b c -> b 1 1 1 c")
        total = scaled if total is None else total + scaled
    assert total is not None
    if len(parameters) == 2 * len(tilings):
        return total.to(x.dtype)
    weight, bias = parameters[-2:]
    shares = weights[-1]
    if not _scaled_weights_pay(x):
        total = total + nn.functional.linear(x, weight, bias) * rearrange(shares, "b c -> b 1 1 1 c")
        return total.to(x.dtype)
    total = (total + rearrange(shares * bias, "b c -> b 1 1 1 c")).to(x.dtype)
    scaled_weight = (rearrange(shares, "b c -> b c 1") * weight).to(x.dtype)
    summed = torch.baddbmm(total.flatten(1, 3), x.flatten(1, 3), scaled_weight.transpose(1, 2))
    return summed.view(x.shape)


class _MeanFrame(Function):
    """A map as it is, and its mean over time; one pass less in backward than two uses of the map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return x.view_as(x), x.mean(dim=1, keepdim=True, dtype=_exact(x))

    @staticmethod
    def backward(ctx: Any, of_map: Tensor | None, of_mean: Tensor | None) -> Tensor | None:
        if of_map is None or of_mean is None:
            raise AssertionError("the map and its mean are used together")
        return torch.add(of_map, of_mean.to(of_map.dtype), alpha=1 / of_map.shape[1])


class _OnChunks:
    """Branches are scaled and added through views of maps by chunk: the fewest bytes."""

    SUM = "b t i j g l1 l2 s -> b (g s)"
    """Over a map as `seen` gives it."""

    @staticmethod
    def seen(tiling: Tiling, x: Tensor) -> Tensor:
        """A map as it is computed with, a view."""
        return tiling.split(x)

    @staticmethod
    def scale(tiling: Tiling, weights: Tensor, like: Tensor) -> Tensor:
        """Weights of channels, `[b, c]`, to be multiplied with maps such as `like` as they are seen."""
        return tiling.scale(weights)

    @staticmethod
    def rows(tiling: Tiling, seen: Tensor) -> Tensor:
        """What the linear layer takes of a map."""
        return rearrange(seen, "b t i j g l1 l2 s -> (b t i j g) (l1 l2 s)")

    @staticmethod
    def of_rows(tiling: Tiling, rows: Tensor, like: Tensor) -> Tensor:
        """The inverse: rows as a map such as `like` is seen."""
        return rows.view(tiling.split(like).shape)


class _OnMaps:
    """Maps are computed with as they lie, and chunks copied out and back.

    Views by chunk, in which few channels lie together, take CPUs several times as long as both. Nor do they multiply
    two kinds without copies of the map, so that weights are rounded to the map's.
    """

    SUM = "b t h w c -> b c"

    @staticmethod
    def seen(tiling: Tiling, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def scale(tiling: Tiling, weights: Tensor, like: Tensor) -> Tensor:
        return rearrange(weights.to(like.dtype), "b c -> b 1 1 1 c")

    @staticmethod
    def rows(tiling: Tiling, seen: Tensor) -> Tensor:
        wide = as_wide(seen, seen.shape[-1] // tiling.groups)
        return tiling.gather(wide).contiguous().view(seen.dtype)

    @staticmethod
    def of_rows(tiling: Tiling, rows: Tensor, like: Tensor) -> Tensor:
        wide = as_wide(like, like.shape[-1] // tiling.groups)
        return tiling.join(rows.view(wide.dtype), wide).contiguous().view(like.dtype)


class _WeightedSum(Function):
    """The weighted sum without maps that only stand between two steps."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        tilings: tuple[Tiling, ...],
        way: type[_OnChunks | _OnMaps],
        *parameters: Tensor,
    ) -> Tensor:
        total = torch.empty_like(x)
        with_channel = len(parameters) > 2 * len(tilings)
        by_clip = with_channel and _scaled_weights_pay(x)
        kept: list[Tensor] = []
        for index, tiling in enumerate(tilings):
            weight, bias = parameters[2 * index : 2 * index + 2]
            rows = way.rows(tiling, way.seen(tiling, x))
            branch = way.of_rows(tiling, torch.addmm(bias, rows, weight.t()), x)
            kept += [rows, branch]
            places, shares = way.seen(tiling, total), way.scale(tiling, weights[index], x)
            if index:
                places.addcmul_(branch, shares)
            elif by_clip:
                torch.addcmul(way.scale(tiling, weights[-1] * parameters[-1], x), branch, shares, out=places)
            else:
                torch.mul(branch, shares, out=places)
        if by_clip:
            scaled = (rearrange(weights[-1], "b c -> b c 1") * parameters[-2]).to(x.dtype)
            total.flatten(1, 3).baddbmm_(x.flatten(1, 3), scaled.transpose(1, 2))
        elif with_channel:
            channel = torch.addmm(parameters[-1], x.flatten(0, 3), parameters[-2].t()).view(x.shape)
            total.addcmul_(channel, rearrange(weights[-1], "b c -> b 1 1 1 c"))
            kept.append(channel)
        ctx.tilings, ctx.way, ctx.by_clip = tilings, way, by_clip
        ctx.save_for_backward(x, weights, *parameters, *kept)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, *others = ctx.saved_tensors
        tilings: tuple[Tiling, ...] = ctx.tilings
        way: type[_OnChunks | _OnMaps] = ctx.way
        count = len(ctx.needs_input_grad) - 4
        parameters, kept = others[:count], others[count:]
        gradient = gradient.contiguous()
        # Biases see the same at every time step.
        frame = gradient.sum(dim=1, keepdim=True, dtype=_exact(x))
        of_x = torch.empty_like(x)
        of_weights = torch.empty_like(weights)
        of_parameters: list[Tensor] = []
        for index, tiling in enumerate(tilings):
            rows, branch = kept[2 * index : 2 * index + 2]
            scaled = way.seen(tiling, gradient).clone(memory_format=torch.contiguous_format)
            of_weights[index] = reduce(scaled * branch, way.SUM, "sum")
            of_mixed = way.rows(tiling, scaled.mul_(way.scale(tiling, weights[index], x)))
            of_bias = reduce(
                tiling.split(frame) * tiling.scale(weights[index]), "b 1 i j g l1 l2 s -> (l1 l2 s)", "sum"
            )
            of_parameters += [of_mixed.t() @ rows, of_bias]
            places, of_rows = way.seen(tiling, of_x), way.of_rows(tiling, of_mixed @ parameters[2 * index], x)
            _ = places.add_(of_rows) if index else places.copy_(of_rows)
        if count > 2 * len(tilings):
            step = _scaled_channel_backward if ctx.by_clip else _channel_backward
            maps = x, gradient, of_x, *kept[2 * len(tilings) :]
            of_weights[-1], *of_channel = step(maps, frame.sum(dim=(1, 2, 3)), weights[-1], *parameters[-2:])
            of_parameters += of_channel
        return of_x, of_weights, None, None, *of_parameters


def _scaled_channel_backward(
    maps: Sequence[Tensor], total: Tensor, shares: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of shares, weight and bias of a channel branch that had weights for each clip.

    `maps` are the input, the sum's gradient, and the input's gradient, to which this branch's is added; `total` is the
    sum's gradient over each clip.
    """
    x, gradient, of_x = (one.flatten(1, 3) for one in maps)
    by_clip = torch.bmm(gradient.transpose(1, 2), x)
    of_shares = (by_clip * weight).sum(dim=2, dtype=total.dtype) + total * bias
    columns = rearrange(shares, "b c -> b c 1")
    of_x.baddbmm_(gradient, (columns * weight).to(x.dtype))
    return of_shares, (by_clip * columns).sum(dim=0), (total * shares).sum(dim=0)


def _channel_backward(
    maps: Sequence[Tensor], total: Tensor, shares: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_scaled_channel_backward`, of a branch that was scaled itself; it is the last of `maps`."""
    x, gradient, of_x, branch = maps
    of_shares = (gradient * branch).sum(dim=(1, 2, 3), dtype=total.dtype)
    of_branch = torch.mul(gradient, rearrange(shares, "b c -> b 1 1 1 c"), out=torch.empty_like(gradient)).flatten(0, 3)
    of_x.flatten(0, 3).addmm_(of_branch, weight)
    return of_shares, of_branch.t() @ x.flatten(0, 3), (total * shares).sum(dim=0)
