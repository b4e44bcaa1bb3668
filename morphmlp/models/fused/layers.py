"""Layers put together of the fused operations, with their gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import Function

from morphmlp.models import autocast
from morphmlp.models.fused import channel_ops, norm_ops, ops
from morphmlp.models.fused.rows import Rows
from morphmlp.models.morphfc import Mlp


def linear(
    x: Float[Tensor, "b t h w c"],
    fc: nn.Linear,
    rows: Rows,
    *,
    factor: Float[Tensor, "b 1 1 1 1"] | None = None,
    base: Float[Tensor, "b t h w d"] | None = None,
    gelu: bool = False,
) -> Float[Tensor, "b t h w d"]:
    """A linear layer over the rows of a map.

    Args:
        x: The map.
        fc: The layer.
        rows: Which values of the map meet in the layer.
        factor: Multiplies a clip's result; it has no gradient.
        base: The result is added to it.
        gelu: Whether GELU goes before the layer.
    """
    x = x.to(_kind(x)).contiguous()
    with autocast.switched_off(x):
        scale = None
        if factor is not None:
            scale = factor.detach().flatten(1).expand(-1, rows.channels(fc.out_features)).contiguous()
        onto = None if base is None else base.contiguous()
        y: Tensor = _Linear.apply(x, fc.weight, fc.bias, scale, onto, tuple(rows), gelu)
        return y


def weighted_sum(
    x: Float[Tensor, "b t h w c"],
    weights: Float[Tensor, "k b c"],
    linears: Sequence[nn.Linear],
    rows: Sequence[Rows],
) -> Float[Tensor, "b t h w c"]:
    """The sum of layers on the same map, each over its rows and with its weights of clips and channels."""
    parameters = [parameter for fc in linears for parameter in (fc.weight, fc.bias)]
    y: Tensor = _WeightedSum.apply(x, weights.contiguous(), tuple(map(tuple, rows)), *parameters)
    return y


def norm(
    x: Float[Tensor, "b t h w c"], layer: nn.LayerNorm, *, uses: int = 0, with_frame: bool = False
) -> tuple[Float[Tensor, "b t h w c"], Float[Tensor, "b 1 h w c"], tuple[Float[Tensor, "b t h w c"], ...]]:
    """The normalised map; its mean over time, empty unless `with_frame`; and the map for so many other uses.

    What is used so has its gradients added where the norm's is written, up to two.
    """
    kind = _kind(x)
    with autocast.switched_off(x):
        arguments = layer.weight, layer.bias, layer.eps, kind, with_frame, uses
        y, frame, *others = _Norm.apply(x.contiguous(), *arguments)
        return y, frame, tuple(others)


def channel_unit(
    x: Float[Tensor, "b t h w c"], norm: nn.LayerNorm, mlp: Mlp, *, factor: Float[Tensor, "b 1 1 1 1"] | None
) -> Float[Tensor, "b t h w c"]:
    """A map and its normalised channels' MLP, times a factor for each clip, in one; only the map is kept."""
    kind = _kind(x)
    with autocast.switched_off(x):
        factors = None if factor is None else factor.detach().flatten().contiguous()
        parameters = norm.weight, norm.bias, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias
        y: Tensor = _ChannelUnit.apply(x.contiguous(), factors, norm.eps, kind, *parameters)
        return y


def _kind(x: Tensor) -> torch.dtype:
    """In which layers compute: what autocast asks for, or the map's own."""
    return torch.get_autocast_dtype(x.device.type) if autocast.is_on(x) else x.dtype


class _Linear(Function):
    """`ops.linear` with its gradients; of GELU only its input is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor | None,
        base: Tensor | None,
        rows: tuple[int, ...],
        gelu: bool,
    ) -> Tensor:
        ctx.rows, ctx.gelu = rows, gelu
        ctx.save_for_backward(x, weight, scale)
        y: Tensor = ops.linear(x, weight.to(x.dtype), bias, scale, base, rows, gelu)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        rows_gradient = gradient.to(x.dtype).contiguous()
        if ctx.needs_input_grad[1]:
            parts, bias_parts, _ = ops.linear_weight_gradient(
                rows_gradient, x, weight, None, scale, ctx.rows, ctx.gelu, False
            )
            of_weight, of_bias = (part.sum(dim=0).to(weight.dtype) for part in (parts, bias_parts))
        if ctx.needs_input_grad[0]:
            z = x if ctx.gelu else None
            of_x = ops.linear_input_gradient(rows_gradient, weight.to(x.dtype), scale, None, z, ctx.rows)
        of_base = gradient if ctx.needs_input_grad[4] else None
        return of_x, of_weight, of_bias, None, of_base, None, None


class _WeightedSum(Function):
    """Layers that are scaled where they are added, and never read again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, rows: tuple[tuple[int, ...], ...], *parameters: Tensor) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(x, weights, *parameters)
        total: Tensor | None = None
        for index, its_rows in enumerate(rows):
            weight, bias = parameters[2 * index : 2 * index + 2]
            total = ops.linear(x, weight.to(x.dtype), bias, weights[index], total, its_rows, False)
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, *parameters = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x: Tensor | None = None
        of_weights: list[Tensor] = []
        of_parameters: list[Tensor] = []
        for index, rows in enumerate(ctx.rows):
            weight, bias = parameters[2 * index : 2 * index + 2]
            parts, bias_parts, scale_parts = ops.linear_weight_gradient(
                gradient, x, weight, bias, weights[index], rows, False, True
            )
            of_parameters += [part.sum(dim=0).to(weight.dtype) for part in (parts, bias_parts)]
            of_weights.append(reduce(scale_parts, "q b g (l s) -> b (g s)", "sum", l=Rows(*rows).tokens))
            of_x = ops.linear_input_gradient(gradient, weight.to(x.dtype), weights[index], of_x, None, rows)
        return of_x, torch.stack(of_weights).to(weights.dtype), None, *of_parameters


class _Norm(Function):
    """`norm_ops.norm` with its gradients, and its input again for other uses."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        kind: torch.dtype,
        with_frame: bool,
        uses: int,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.with_frame = eps, with_frame
        ctx.save_for_backward(x, weight)
        y, frame = norm_ops.norm(x, weight, bias, eps, kind, with_frame)
        return y, frame, *(x.view_as(x) for _ in range(uses))

    @staticmethod
    def backward(ctx: Any, of_y: Tensor, of_frame: Tensor | None, *of_uses: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        found = [one.contiguous() for one in of_uses if one is not None]
        # A compiler gives zeros for what has no gradient.
        frame = of_frame.contiguous() if ctx.with_frame and of_frame is not None else None
        of_x, *parts = norm_ops.norm_gradient(of_y.contiguous(), x, weight, frame, found, ctx.eps)
        of_weight, of_bias = (part.sum(dim=0).to(weight.dtype) for part in parts)
        return of_x, of_weight, of_bias, None, None, None, None


class _ChannelUnit(Function):
    """`channel_ops.channel_unit` with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, factor: Tensor | None, eps: float, kind: torch.dtype, *parameters: Tensor
    ) -> Tensor:
        ctx.eps, ctx.kind = eps, kind
        ctx.save_for_backward(x, factor, *parameters)
        norm_weight, norm_bias, weight_1, bias_1, weight_2, bias_2 = parameters
        weights = norm_weight, norm_bias, weight_1.to(kind), bias_1, weight_2.to(kind), bias_2
        y: Tensor = channel_ops.channel_unit(x, *weights, factor, eps)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, norm_weight, norm_bias, weight_1, bias_1, weight_2, _ = ctx.saved_tensors
        weights = norm_weight, norm_bias, weight_1.to(ctx.kind), bias_1, weight_2.to(ctx.kind)
        gradient = gradient.contiguous()
        of_x = of_parameters = None
        if any(ctx.needs_input_grad[4:]):
            parts = channel_ops.weight_gradient(gradient, x, *weights, factor, ctx.eps)
            standard, of_bias_1, of_weight_2, of_bias_2 = (part.sum(dim=0) for part in parts)
            # What the first layer takes is standardised * norm_weight + norm_bias.
            of_norm_weight, of_norm_bias = (standard * weight_1).sum(dim=0), of_bias_1 @ weight_1.to(of_bias_1.dtype)
            of_weight_1 = torch.addcmul(torch.outer(of_bias_1, norm_bias), standard, norm_weight)
            found = of_norm_weight, of_norm_bias, of_weight_1, of_bias_1, of_weight_2, of_bias_2
            of_parameters = [one.to(weight_1.dtype) for one in found]
        if ctx.needs_input_grad[0]:
            of_x = channel_ops.input_gradient(gradient, x, *weights, factor, ctx.eps)
        return of_x, None, None, None, *(of_parameters or [None] * 6)
