"""LayerNorm that keeps the kind of its input under autocast."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from morphmlp.models import autocast


class LayerNorm(nn.LayerNorm):
    """A 16-bit map stays one, where autocast would make it fp32; statistics are fp32 either way."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        if not autocast.is_on(x):
            return super().forward(x)
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if x.is_cuda and not torch.compiler.is_compiling():  # whose kernel takes one kind
            weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        with autocast.switched_off(x):
            return functional.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
