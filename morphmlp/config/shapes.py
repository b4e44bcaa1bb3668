"""The arithmetic of MorphMLP's shapes: grids, groups, and which sizes fit together.

Pure integers, so that a sweep can check thousands of points and a config error can name its stage
without building a network.
"""

from collections.abc import Sequence

NUM_STAGES = 4
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


def shape_faults(*, embed_dims: Sequence[int], chunk_lengths: Sequence[int], crop_size: int) -> list[str]:
    """What keeps a model from running on a crop, each fault led by its dotted field; empty when all fits."""
    faults = []
    for stage, (channels, chunk, grid) in enumerate(
        zip(embed_dims, chunk_lengths, stage_grids(crop_size), strict=True), start=1
    ):
        where = f"model.chunk_lengths: stage {stage}: chunk length {chunk}"
        if channels % chunk:
            faults.append(f"{where} must divide the stage's {channels} channels (model.embed_dims)")
        tokens = grid * grid
        if tokens % chunk:
            faults.append(f"{where} must divide its {tokens} tokens ({grid}x{grid} at clip.crop_size {crop_size})")
    return faults
