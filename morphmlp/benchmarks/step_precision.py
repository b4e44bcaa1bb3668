"""How far 16-bit arithmetic takes a network's logits from fp32, next to what the published order of steps loses.

Weights and clips are drawn, so that every layer counts: as published a temporal layer would begin with zeros. A single
draw says little, since rounding goes either way; so it is done for several.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from tabulate import tabulate
from torch import Tensor, nn

from morphmlp.models import MorphMLP
from morphmlp.models.fused.form import as_fused
from morphmlp.models.presets import preset
from morphmlp.models.published_form import as_published

PRESETS = ("morphmlp_s_16x4", "morphmlp_b_16x4")


@dataclass(frozen=True, kw_only=True)
class PrecisionLoss:
    """Root mean square of the error of logits over that of the logits, over all draws."""

    model: str
    present: float
    published: float
    draws: int
    fused: float | None = None
    """Of fused kernels, if they were asked for."""

    @property
    def ratio(self) -> float:
        """Error over that of the published order."""
        return self.present / self.published


def precision_losses(
    names: Sequence[str],
    *,
    draws: int,
    clips: int,
    num_frames: int,
    kind: torch.dtype,
    log: Callable[[str], None],
    fused: bool = False,
) -> list[PrecisionLoss]:
    """Compare 16-bit logits (`kind`) with those of fp32, on CPUs; `fused`: also of fused kernels, in an interpreter."""
    found = []
    for name in names:
        squares = []
        for draw in range(draws):
            log(f"{name}: draw {draw + 1} of {draws}")
            squares.append(_squared_errors(name, draw, clips=clips, num_frames=num_frames, kind=kind, fused=fused))
        present, published, *last = (math.sqrt(sum(column) / draws) for column in zip(*squares, strict=True))
        found.append(
            PrecisionLoss(
                model=name, present=present, published=published, draws=draws, fused=last[0] if last else None
            )
        )
    return found


def losses_table(found: Sequence[PrecisionLoss]) -> str:
    """A line for each model."""
    with_fused = any(one.fused is not None for one in found)
    rows = []
    for one in found:
        cells = [one.model, f"{one.present:.5f}", f"{one.published:.5f}", f"{one.ratio:.3f}"]
        if one.fused is not None:
            cells += [f"{one.fused:.5f}", f"{one.fused / one.present:.3f}"]
        rows.append(cells)
    headers = ["model", "error", "published: error", "ratio"]
    headers += ["fused: error", "to present"] if with_fused else []
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align)


@torch.inference_mode()
def _squared_errors(
    name: str, seed: int, *, clips: int, num_frames: int, kind: torch.dtype, fused: bool
) -> tuple[float, ...]:
    network = drawn_network(name, seed, num_frames=num_frames)
    batch = torch.randn(clips, *network.input_shape, generator=torch.Generator().manual_seed(seed))
    exact = network(batch)

    def squared_error(network: MorphMLP) -> float:
        with torch.autocast("cpu", kind):
            rounded: Tensor = network(batch)
        return float((rounded.float() - exact).square().mean() / exact.square().mean())

    found = [squared_error(network), squared_error(as_published(network))]
    if fused:
        found.append(squared_error(as_fused(drawn_network(name, seed, num_frames=num_frames))))
    return tuple(found)


def drawn_network(name: str, seed: int, *, num_frames: int) -> MorphMLP:
    """A published network in evaluation, whose weights keep the size of what goes through them."""
    made = preset(name)
    torch.manual_seed(seed)
    network = MorphMLP(replace(made.model, drop_path_rate=0.0), num_frames=num_frames, crop_size=made.crop_size).eval()
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            assert module.bias is not None
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm3d):
            nn.init.normal_(module.weight, mean=1.0, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return network
