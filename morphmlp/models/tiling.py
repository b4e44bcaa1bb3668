"""How the tokens of a map are divided into chunks, as views: what a token branch gathers, and where it puts it back.

Where nothing is padded, every division is one of a grid into tiles: a line is a grid of one row, and tokens that lie n
apart are a column of a grid of n columns.
"""

from dataclasses import dataclass
from typing import Self

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from morphmlp.config.shapes import NUM_STAGES, Chunks

# Tiles, i x j of them, of p x q tokens, each row after row or column after column. Each pattern above its inverse.
TO_TILES = "b t (i p) (j q) (g s) -> b t i j g p q s"
FROM_TILES = "b t i j g p q s -> b t (i p) (j q) (g s)"

TO_COLUMN_TILES = "b t (i p) (j q) (g s) -> b t i j g q p s"
FROM_COLUMN_TILES = "b t i j g q p s -> b t (i p) (j q) (g s)"

_WIDE = (torch.complex128, torch.int64, torch.int32)
"""Kinds of 16, 8 and 4 bytes."""


def as_wide(x: Float[Tensor, "*sites c"], size: int) -> Tensor:
    """A view of a map as a few wide values, a whole number of them for so many channels.

    CPUs copy these in a fraction of the time that single values take, where so few lie together. No gradients pass.
    """
    kind = next((kind for kind in _WIDE if size * x.element_size() % kind.itemsize == 0), x.dtype)
    return x.view(kind)


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The chunks of one branch on maps of one size."""

    grid: tuple[int, int]
    """Rows and columns in which a frame's tokens are laid out."""
    tile: tuple[int, int]
    """Rows and columns of a chunk; divisors of the grid's."""
    groups: int
    """Of channels."""
    by_columns: bool = False
    """Whether a chunk's tokens go column after column."""

    @classmethod
    def of(cls, chunks: Chunks, height: int, width: int, *, groups: int, by_columns: bool = False) -> Self | None:
        """The chunks of a map; None where some would be padded, or where a column's chunks are no rectangles."""
        grid, tile = (height, width), chunks.tile(height, width, by_columns=by_columns)
        if tile is not None:
            if height % tile[0] or width % tile[1]:
                return None
        elif height * width % chunks.length:
            return None
        elif chunks.stage == NUM_STAGES:
            grid = chunks.length, height * width // chunks.length
            tile = chunks.length, 1
        elif not by_columns:
            grid, tile = (1, height * width), (1, chunks.length)
        else:
            tile = min(chunks.length, height), max(chunks.length // height, 1)
            if tile[0] * tile[1] != chunks.length or height % tile[0] or width % tile[1]:
                return None
        return cls(grid=grid, tile=tile, groups=groups, by_columns=by_columns)

    def split(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t i j g _ _ s"]:
        """A view of a map by chunk, group, and place in the chunk."""
        laid_out = x.view(*x.shape[:2], *self.grid, x.shape[-1])
        pattern = TO_COLUMN_TILES if self.by_columns else TO_TILES
        return rearrange(laid_out, pattern, p=self.tile[0], q=self.tile[1], g=self.groups)

    def gather(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "rows ls"]:
        """What the linear layer takes: a row for each chunk and group."""
        return rearrange(self.split(x), "b t i j g l1 l2 s -> (b t i j g) (l1 l2 s)")

    def join(self, rows: Float[Tensor, "rows ls"], like: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """The map of such rows, the inverse of `gather`."""
        pattern = FROM_COLUMN_TILES if self.by_columns else FROM_TILES
        return rearrange(rows.view(self.split(like).shape), pattern).reshape(like.shape)

    def scale(self, weights: Float[Tensor, "b c"]) -> Float[Tensor, "b 1 1 1 g 1 1 s"]:
        """Weights of channels, to be multiplied with split maps."""
        return rearrange(weights, "b (g s) -> b 1 1 1 g 1 1 s", g=self.groups)

    def places(self, frame: Float[Tensor, "b 1 h w c"]) -> Float[Tensor, "b g ls"]:
        """The mean over chunks at each place of a chunk."""
        return reduce(self.split(frame), "b 1 i j g l1 l2 s -> b g (l1 l2 s)", "mean")
