"""The arithmetic of MorphMLP's shapes: grids, groups, and which sizes fit together.

Pure integers, so that a sweep can check thousands of points and a config error can name its stage
without building a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from morphmlp.config.values import ChunkShape

NUM_STAGES = 4
GROUP_WIDTHS = (0.5, 1.0, 2.0)
"""Channels of a group as multiples of C / L that the paper compares (Table 8)."""
STEM_TEMPORAL_STRIDE = 2
PUBLISHED_CROP_SIZE = 224
LARGE_MAP_BYTES = 2**25
"""A map of this size glibc gives back to the system whenever it is freed: the greatest that its threshold grows to."""


def stage_grids(crop_size: int) -> tuple[int, ...]:
    """Rows (and columns) of each stage's feature map: two stride-2 convolutions, then one per stage.

    A 3x3 convolution with stride 2 and padding 1 turns n into ceil(n / 2).
    """
    side = -(-crop_size // 2)
    grids = []
    for _ in range(NUM_STAGES):
        side = -(-side // 2)
        grids.append(side)
    return tuple(grids)


def temporal_tokens(num_frames: int) -> int:
    """Time steps after the stem, whose first convolution has temporal stride 2 and padding 1."""
    return -(-num_frames // STEM_TEMPORAL_STRIDE)


def temporal_groups(channels: int, tokens: int) -> int:
    """Channel groups of a temporal MorphFC: the largest divisor of `channels` not above `tokens`.

    Gives the published 8, 8, 8, 8 at 16 frames and 16, 16, 14, 16 at 32 for widths 112, 224, 392, 784.
    """
    return max(groups for groups in range(1, tokens + 1) if channels % groups == 0)


def channel_groups(chunk_length: int, group_width: float, *, stage: int) -> float:
    """Channel groups of a spatial MorphFC, not whole where the two don't fit; `stage` counts from 1.

    L / `group_width` in stages 1-3, so that a group has `group_width` x C / L channels; L in stage 4, which the paper's
    parameter counts (Table 8) show unchanged.
    """
    return chunk_length if stage == NUM_STAGES else chunk_length / group_width


def trained_window(chunk_length: int, side: int, *, stage: int) -> tuple[int, int] | None:
    """Rows and columns of a chunk of the width branch on the map that it was made for; None: it's no rectangle.

    In stages 1-3 chunks are consecutive tokens, row after row; in stage 4, counted from 1, they lie `side`^2 / L apart,
    as in the published source, so that L = `side` is a column.

    Args:
        chunk_length: L, a divisor of `side`^2.
        side: Rows and columns of the map.
        stage: From 1.
    """
    if stage == NUM_STAGES:
        wholes = {1: (1, 1), side: (side, 1), side * side: (side, side)}
        return wholes.get(chunk_length)
    if side % chunk_length == 0:
        return 1, chunk_length
    return (chunk_length // side, side) if chunk_length % side == 0 else None


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """How the tokens of one stage's maps are divided into chunks, on maps of any size."""

    length: int
    """L, tokens of a chunk."""
    stage: int
    """From 1."""
    shape: ChunkShape = "windows"
    side: int | None = None
    """Rows and columns of the map whose chunks windows keep; None: of any, whose tokens then must fit."""

    def tile(self, height: int, width: int, *, by_columns: bool = False) -> tuple[int, int] | None:
        """Rows and columns of the chunks of a map, which is padded to multiples of them; None: cut from its line.

        Args:
            height: Rows of the map.
            width: Its columns.
            by_columns: Of the height branch, whose chunks are those of the width branch turned round.

        Raises:
            ValueError: The chunks were no rectangles, so windows can't keep their shape.
        """
        if self.shape == "padded_side" and height * width % self.length:
            return (self.length, 1) if by_columns else (1, self.length)
        if self.shape != "windows" or self.side is None or (height, width) == (self.side, self.side):
            return None
        window = trained_window(self.length, self.side, stage=self.stage)
        if window is None:
            raise ValueError(self.window_fault(f"a map of {height}x{width} tokens"))
        return window[::-1] if by_columns else window

    def count(self, height: int, width: int, *, by_columns: bool = False) -> int:
        """Chunks of a map, padded ones too."""
        tile = self.tile(height, width, by_columns=by_columns)
        if tile is None:
            return -(-height * width // self.length)
        return -(-height // tile[0]) * -(-width // tile[1])

    def window_fault(self, where: str) -> str:
        """Why windows can't be used on another size than the trained one."""
        return (
            f"model.chunk_lengths: stage {self.stage}: {self.length} consecutive tokens are no rectangle on "
            f"{self.side}x{self.side}, so that windows can't keep their shape on {where}; choose a divisor or a "
            "multiple of the side, or another model.chunk_shape"
        )


def stage_chunks(
    chunk_lengths: Sequence[int], *, crop_size: int, shape: ChunkShape = "windows", chunk_crop_size: int | None = None
) -> tuple[Chunks, ...]:
    """The chunks of each stage of a network for a crop."""
    sides = stage_grids(chunk_crop_size or crop_size)
    return tuple(
        Chunks(length=length, stage=stage, shape=shape, side=side)
        for stage, (length, side) in enumerate(zip(chunk_lengths, sides, strict=True), start=1)
    )


def any_size_faults(chunks: Sequence[Chunks]) -> list[str]:
    """What keeps a network from running on images of any size, as segmentation sees them in validation and test."""
    return [
        one.window_fault("whole images (task: segmentation)")
        for one in chunks
        if one.shape == "windows" and one.side is not None
        if trained_window(one.length, one.side, stage=one.stage) is None
    ]


def view_faults(chunks: Sequence[Chunks], size: int, *, field: str) -> list[str]:
    """What keeps a network from running on squares of another size; `field` is where that comes from."""
    return [
        one.window_fault(f"{grid}x{grid} ({field} {size})")
        for one, grid in zip(chunks, stage_grids(size), strict=True)
        if one.shape == "windows" and one.side is not None and grid != one.side
        if trained_window(one.length, one.side, stage=one.stage) is None
    ]


def shape_faults(
    *,
    embed_dims: Sequence[int],
    chunk_lengths: Sequence[int],
    crop_size: int,
    group_width: float = 1,
    chunk_shape: ChunkShape = "windows",
    chunk_crop_size: int | None = None,
) -> list[str]:
    """What keeps a model from running on a crop, each fault led by its dotted field; empty when all fits."""
    faults, sides = [], stage_grids(chunk_crop_size or crop_size)
    reference = f"clip.crop_size {crop_size}" if chunk_crop_size is None else f"model.chunk_crop_size {chunk_crop_size}"
    for stage, (channels, chunk, side) in enumerate(zip(embed_dims, chunk_lengths, sides, strict=True), start=1):
        where = f"model.chunk_lengths: stage {stage}: chunk length {chunk}"
        groups = channel_groups(chunk, group_width, stage=stage)
        if channels % groups and groups == chunk:
            faults.append(f"{where} must divide the stage's {channels} channels (model.embed_dims)")
        elif channels % groups or groups % 1:
            faults.append(
                f"{where} / model.group_width {group_width:g} = {groups:g} channel groups must be a whole number that "
                f"divides the stage's {channels} channels (model.embed_dims)"
            )
        tokens = side * side
        if chunk_shape == "windows" and tokens % chunk:
            faults.append(f"{where} must divide its {tokens} tokens ({side}x{side} at {reference})")
    if faults or chunk_shape != "windows" or chunk_crop_size is None:
        return faults
    chunks = stage_chunks(chunk_lengths, crop_size=crop_size, chunk_crop_size=chunk_crop_size)
    return view_faults(chunks, crop_size, field="clip.crop_size")
