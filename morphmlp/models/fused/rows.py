"""Where the rows that a linear layer takes lie in a map, as arithmetic that a kernel does while it reads and writes.

A map `[b, t, h, w, c]` is a list of tokens with `c` channels each. A row of a layer is a chunk and a group: its place
in the map is that of its first token and its group, and the place of each of its values is further on by something
that is the same for all rows. So nothing has to be copied to stand in rows.
"""

from typing import NamedTuple, Self

from jaxtyping import Float
from torch import Tensor

from morphmlp.models.tiling import Tiling


class Rows(NamedTuple):
    """Rows, as (frame, i, j, group), and the tokens of a row, as (l1, l2); strides are in tokens.

    A tuple of numbers, so that it passes through operations and compilers as it is.
    """

    frames: int
    """Frames of a clip: whatever is outermost in a row's number, after the clip."""
    down: int
    across: int
    groups: int
    frame_stride: int
    down_stride: int
    across_stride: int
    outer: int
    """Tokens of a row: so many times ..."""
    inner: int
    """... so many."""
    outer_stride: int
    inner_stride: int

    @classmethod
    def of_tokens(cls, tokens: int) -> Self:
        """A row for each of a clip's tokens, as a linear layer on the last axis takes them."""
        return cls(tokens, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)

    @classmethod
    def of_time(cls, x: Float[Tensor, "b t h w c"], *, groups: int) -> Self:
        """A row for each place and group: all its time steps."""
        times, places = x.shape[1], x.shape[2] * x.shape[3]
        return cls(1, places, 1, groups, times * places, 1, 1, times, 1, places, 1)

    @classmethod
    def of_chunks(cls, x: Float[Tensor, "b t h w c"], tiling: Tiling) -> Self:
        """A row for each chunk and group."""
        rows, columns = tiling.grid
        high, wide = tiling.tile
        token = ((wide, 1), (high, columns)) if tiling.by_columns else ((high, columns), (wide, 1))
        (outer, outer_stride), (inner, inner_stride) = token
        return cls(
            frames=x.shape[1],
            down=rows // high,
            across=columns // wide,
            groups=tiling.groups,
            frame_stride=rows * columns,
            down_stride=high * columns,
            across_stride=wide,
            outer=outer,
            inner=inner,
            outer_stride=outer_stride,
            inner_stride=inner_stride,
        )

    @property
    def tokens(self) -> int:
        """Of a row."""
        return self.outer * self.inner

    @property
    def in_a_segment(self) -> int:
        """Rows of a clip and a group."""
        return self.frames * self.down * self.across

    def channels(self, width: int) -> int:
        """Of a map whose rows are so wide."""
        return width // self.tokens * self.groups
