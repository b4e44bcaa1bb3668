"""The arithmetic of MorphMLP's shapes: grids, groups, and which sizes fit together.

Pure integers, so that a sweep can check thousands of points and a config error can name its stage
without building a network.
"""

from collections.abc import Sequence

NUM_STAGES = 4
GROUP_WIDTHS = (0.5, 1.0, 2.0)
"""Channels of a group as multiples of C / L that the paper compares (Table 8)."""
STEM_TEMPORAL_STRIDE = 2


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


def shape_faults(
    *, embed_dims: Sequence[int], chunk_lengths: Sequence[int], crop_size: int, group_width: float = 1
) -> list[str]:
    """What keeps a model from running on a crop, each fault led by its dotted field; empty when all fits."""
    faults = []
    for stage, (channels, chunk, grid) in enumerate(
        zip(embed_dims, chunk_lengths, stage_grids(crop_size), strict=True), start=1
    ):
        where = f"model.chunk_lengths: stage {stage}: chunk length {chunk}"
        groups = channel_groups(chunk, group_width, stage=stage)
        if channels % groups and groups == chunk:
            faults.append(f"{where} must divide the stage's {channels} channels (model.embed_dims)")
        elif channels % groups or groups % 1:
            faults.append(
                f"{where} / model.group_width {group_width:g} = {groups:g} channel groups must be a whole number that "
                f"divides the stage's {channels} channels (model.embed_dims)"
            )
        tokens = grid * grid
        if tokens % chunk:
            faults.append(f"{where} must divide its {tokens} tokens ({grid}x{grid} at clip.crop_size {crop_size})")
    return faults
