"""The network in steps that are the same for maps of every size, so that one recorded graph holds for all of them.

The network itself chooses steps by a map's size: whether chunks fit it or it's padded, and in which order branches are
summed. Here every map is padded to whole chunks, by one where they fit. The same parameters, the same function;
sums round differently.
"""

from types import MethodType
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from morphmlp.config.shapes import NUM_STAGES, Chunks, trained_window
from morphmlp.models.morphfc import (
    FROM_CHUNKS,
    FROM_COLUMN_WINDOWS,
    FROM_COLUMNS,
    FROM_ROWS,
    FROM_STRIDED_CHUNKS,
    FROM_WINDOWS,
    TO_CHUNKS,
    TO_COLUMN_WINDOWS,
    TO_COLUMNS,
    TO_ROWS,
    TO_STRIDED_CHUNKS,
    TO_WINDOWS,
    FrameMorphFC,
    SpatialMorphFC,
    branch_sum,
)
from morphmlp.models.network import Network
from morphmlp.models.segmentation.decoders import UperNet

SIZE_MULTIPLE = 32
"""Rows and columns of an image must be multiples of it, so that the maps of all strides lie over one another."""


def as_any_size(network: Network) -> Network:
    """The same module, whose layers run the same steps for images of any size from now on.

    Not for `chunk_shape: padded_side`, which pads a map by whether its tokens fit.
    """
    for module in network.modules():
        if isinstance(module, SpatialMorphFC | FrameMorphFC):
            module.forward = MethodType(_spatial, module)  # type: ignore[method-assign]
        elif isinstance(module, UperNet):
            module.pooled_to = MethodType(_pooled_to, module)  # type: ignore[method-assign]
    return network


def _spatial(layer: SpatialMorphFC | FrameMorphFC, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
    mixed = _mix_windows if layer.chunks.shape == "windows" and layer.chunks.side is not None else _mix_line
    branches = [
        mixed(x, fc, chunks=layer.chunks, groups=layer.groups, by_columns=by_columns)
        for fc, by_columns in layer.token_branches()
    ]
    if layer.mlp_c is not None:
        branches.append(layer.mlp_c(x))
    return cast(Tensor, layer.proj(branch_sum(branches, layer.reweight)))


def _mix_windows(x: Tensor, fc: nn.Linear, *, chunks: Chunks, groups: int, by_columns: bool) -> Tensor:
    """As `morphfc.mix_chunks` for chunks that keep their shape."""
    height, width = x.shape[2:4]
    assert chunks.side is not None
    window = trained_window(chunks.length, chunks.side, stage=chunks.stage)
    assert window is not None
    p, q = window[::-1] if by_columns else window
    to, back = (TO_COLUMN_WINDOWS, FROM_COLUMN_WINDOWS) if by_columns else (TO_WINDOWS, FROM_WINDOWS)
    padded = functional.pad(x, (0, 0, 0, _whole(width, q) - width, 0, _whole(height, p) - height))
    mixed: Tensor = fc(rearrange(padded, to, p=p, q=q, g=groups))
    return rearrange(mixed, back, p=p, q=q, g=groups)[:, :, :height, :width]


def _mix_line(x: Tensor, fc: nn.Linear, *, chunks: Chunks, groups: int, by_columns: bool) -> Tensor:
    """As `morphfc.mix_chunks` for chunks of the line of tokens."""
    height, width = x.shape[2:4]
    line = rearrange(x, TO_COLUMNS if by_columns else TO_ROWS)
    to, back = (TO_STRIDED_CHUNKS, FROM_STRIDED_CHUNKS) if chunks.stage == NUM_STAGES else (TO_CHUNKS, FROM_CHUNKS)
    tokens = height * width
    padded = functional.pad(line, (0, 0, 0, _whole(tokens, chunks.length) - tokens))
    mixed: Tensor = fc(rearrange(padded, to, l=chunks.length, g=groups))
    line = rearrange(mixed, back, l=chunks.length, g=groups)[:, :, :tokens]
    return rearrange(line, FROM_COLUMNS if by_columns else FROM_ROWS, h=height, w=width)


def _whole(size: int, part: int) -> int:
    """More than the size, in whole parts, in a form that a recorder of graphs sees to be whole.

    There are at least two parts, and always something is padded: a recorder decides by the example's size whether an
    axis has a single part, and whether anything is padded, and the graph would be for such sizes alone.
    """
    return cast(int, torch.sym_max(size // part + 1, 2)) * part


def _pooled_to(decoder: UperNet, x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c s s"]:
    """Adaptive pooling as two products of matrices: ONNX has none for sizes that it doesn't know."""
    del decoder
    rows, columns = (_averaging(x.shape[axis], side, x) for axis in (2, 3))
    return rows @ x @ columns.T


def _averaging(size: int, parts: int, like: Tensor) -> Float[Tensor, "parts size"]:
    """The matrix that makes means of so many parts, which overlap where they don't fit."""
    place, part = torch.arange(size, device=like.device), torch.arange(parts, device=like.device)[:, None]
    inside = (place >= part * size // parts) & (place < ((part + 1) * size + parts - 1) // parts)
    weights = inside.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)
