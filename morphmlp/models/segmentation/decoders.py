"""Decoders: from the four maps of a backbone to logits at a quarter of the image's rows and columns.

Layers, order and initial weights are those of mmsegmentation 0.x (`FPN` with `FPNHead`; `UPerHead` with an auxiliary
`FCNHead`), on which the published recipes build. Its BatchNorms are synchronised over GPUs; here each micro-batch is
normalised by its own statistics, and the running ones move once a step (`training.loop.batch_norm`).

Maps are channels-first, of strides 4, 8, 16, 32, and of any size: upsampling goes by the size of the map it leads to.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from morphmlp.models.sizes import FPN_UNITS, POOLED_SIDES

CLASSIFIER_STD = 0.01


class ConvUnit(nn.Module):
    """A convolution that keeps the size, without bias, then BatchNorm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, norm: type[nn.BatchNorm2d]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.norm = norm(channels_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The same size, other channels."""
        return functional.relu(self.norm(self.conv(x)), inplace=True)

    def reset_parameters(self) -> None:
        """Draw the weights as mmcv does: normal by what leaves the convolution (He), norm 1 and 0."""
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm.reset_parameters()


class PooledNorm(nn.BatchNorm2d):
    """BatchNorm of maps that may be a single number for each channel, as of one image pooled to 1 x 1.

    One number has no variance, and torch refuses it. As with any other number of equal values, the result is the bias;
    the statistics are that number and 0. A micro-batch comes down to one image where the others are broken.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The normalised maps."""
        if not self.training or x.numel() > x.shape[1]:
            y: Tensor = super().forward(x)
            return y
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            share = self.momentum or 0.0
            self.running_mean.lerp_(x.flatten().to(self.running_mean), share)
            self.running_var.mul_(1 - share)
            self.num_batches_tracked.add_(1)
        nothing = x - x  # so that weight and input have gradients, which are 0
        return (nothing * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class Classifier(nn.Module):
    """Whole channels are dropped, then a 1x1 convolution makes logits."""

    def __init__(self, channels: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.conv = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Logits of each place."""
        y: Tensor = self.conv(self.dropout(x))
        return y

    def reset_parameters(self) -> None:
        """Small normal weights, no bias."""
        nn.init.normal_(self.conv.weight, std=CLASSIFIER_STD)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)


class SemanticFpn(nn.Module):
    """A feature pyramid, whose maps are brought to stride 4 and added (Panoptic FPN, arXiv 1901.02446, section 3.1).

    The pyramid has 1x1 convolutions on the maps, sums from the top down, nearest, and 3x3 convolutions; all with bias,
    without norm and activation, and twice as wide as the rest.
    """

    def __init__(self, dims: Sequence[int], *, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        neck = 2 * channels
        self.laterals = nn.ModuleList(nn.Conv2d(size, neck, 1) for size in dims)
        self.outputs = nn.ModuleList(nn.Conv2d(neck, neck, 3, padding=1) for _ in dims)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ConvUnit(channels if unit else neck, channels, kernel=3, norm=nn.BatchNorm2d) for unit in range(units)
            )
            for units in FPN_UNITS
        )
        self.classifier = Classifier(channels, classes, dropout=dropout)

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> tuple[Float[Tensor, "b k h w"], ...]:
        """Logits at stride 4."""
        laterals = [lateral(one) for lateral, one in zip(self.laterals, maps, strict=True)]
        pyramid = top_down(laterals, mode="nearest")
        total: Tensor | None = None
        for number, (output, units, one) in enumerate(zip(self.outputs, self.levels, pyramid, strict=True)):
            x = output(one)
            for unit in cast(nn.ModuleList, units):
                x = unit(x)
                if number:
                    x = functional.interpolate(x, size=[2 * side for side in x.shape[-2:]], mode="bilinear")
            total = x if total is None else total + resized(x, total)
        return (self.classifier(total),)

    def reset_parameters(self) -> None:
        """The pyramid uniform by Xavier without bias, the units and the classifier as they are drawn everywhere."""
        for conv in (*self.laterals, *self.outputs):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)
        _reset(self)


class UperNet(nn.Module):
    """Pyramid pooling of the last map, sums from the top down, all levels side by side at stride 4 (arXiv 1807.10221).

    With an auxiliary head on the third map, which exists for its loss: one unit, half as wide, and a classifier.
    """

    def __init__(
        self, dims: Sequence[int], *, channels: int, classes: int, dropout: float, auxiliary: bool = True
    ) -> None:
        super().__init__()

        def unit(channels_in: int, kernel: int, norm: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> ConvUnit:
            return ConvUnit(channels_in, channels, kernel=kernel, norm=norm)

        self.pooled = nn.ModuleList(unit(dims[-1], 1, PooledNorm) for _ in POOLED_SIDES)
        self.bottleneck = unit(dims[-1] + len(POOLED_SIDES) * channels, 3)
        self.laterals = nn.ModuleList(unit(size, 1) for size in dims[:-1])
        self.outputs = nn.ModuleList(unit(channels, 3) for _ in dims[:-1])
        self.fusion = unit(len(dims) * channels, 3)
        self.classifier = Classifier(channels, classes, dropout=dropout)
        self.auxiliary = (
            nn.Sequential(
                ConvUnit(dims[2], channels // 2, kernel=3, norm=nn.BatchNorm2d),
                Classifier(channels // 2, classes, dropout=dropout),
            )
            if auxiliary
            else None
        )

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> tuple[Float[Tensor, "b k _ _"], ...]:
        """Logits at stride 4; in training those of the auxiliary head, at stride 16, follow where there is one."""
        last = maps[-1]
        scales = [
            functional.interpolate(unit(self.pooled_to(last, side)), size=last.shape[-2:], mode="bilinear")
            for side, unit in zip(POOLED_SIDES, self.pooled, strict=True)
        ]
        top = self.bottleneck(torch.cat([last, *scales], dim=1))
        laterals = [lateral(one) for lateral, one in zip(self.laterals, maps[:-1], strict=True)]
        *lower, top = top_down([*laterals, top], mode="bilinear")
        outputs = [output(one) for output, one in zip(self.outputs, lower, strict=True)] + [top]
        fused = self.fusion(torch.cat([resized(one, outputs[0]) for one in outputs], dim=1))
        logits = self.classifier(fused)
        return (logits, self.auxiliary(maps[2])) if self.auxiliary is not None and self.training else (logits,)

    def pooled_to(self, x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c s s"]:
        """Means over parts of a map, `side` x `side` of them."""
        return functional.adaptive_avg_pool2d(x, side)

    def reset_parameters(self) -> None:
        """Units and classifiers as they are drawn everywhere."""
        _reset(self)


Decoder = SemanticFpn | UperNet


def top_down(maps: Sequence[Float[Tensor, "b c _ _"]], *, mode: str) -> list[Float[Tensor, "b c _ _"]]:
    """Each map plus what lies above it, from the last, smallest, one on."""
    sums = [maps[-1]]
    for one in reversed(maps[:-1]):
        sums.append(one + resized(sums[-1], one, mode=mode))
    return sums[::-1]


def resized(x: Float[Tensor, "b c _ _"], like: Float[Tensor, "b _ h w"], *, mode: str = "bilinear") -> Tensor:
    """A map at another one's size; corners aren't aligned."""
    return x if x.shape[-2:] == like.shape[-2:] else functional.interpolate(x, size=like.shape[-2:], mode=mode)


def _reset(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, ConvUnit | Classifier):
            part.reset_parameters()
