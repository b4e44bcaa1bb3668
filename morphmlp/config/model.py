"""The section of an experiment file that says what network is trained, with the model's own shape rules."""

from functools import partial
from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.shapes import GROUP_WIDTHS, PUBLISHED_CROP_SIZE, Chunks, shape_faults, stage_chunks
from morphmlp.config.values import (
    STRICT,
    BlockOrder,
    BlockSkip,
    Branch,
    BranchSum,
    ChunkShape,
    FourInts,
    PositiveFloat,
    PositiveInt,
    Rate,
    Temporal,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """A MorphMLP network; with the clip's size it fixes every tensor shape."""

    depths: FourInts
    """Blocks per stage."""
    embed_dims: FourInts
    """Channels per stage."""
    chunk_lengths: FourInts
    """Tokens that one spatial MorphFC mixes, per stage (L); also its number of channel groups."""
    mlp_ratio: PositiveFloat
    """Hidden width of the channel MLP as a multiple of the stage's channels."""
    drop_path_rate: Rate
    """Stochastic depth of the last block; grows linearly from 0 at the first."""
    num_classes: PositiveInt
    """Outputs of the head."""
    temporal: Temporal
    """`mixed`: MorphFC_t in every block (the published video model). `averaged`: frames meet only in the stem and
    in the final mean (the ablation). `none`: the image model, 2-D stem; clips have one frame."""
    branches: tuple[Branch, ...] | None = None
    """Branches of the spatial layers, as in `[height, channel]`; null: all three, as published. In stage 4, whose one
    token branch sees the whole frame, `height` or `width` stand for that one."""
    branch_sum: BranchSum = "weighted"
    """`weighted`: each clip and channel weighs the branches by a softmax, as in the published source. `plain`: they are
    added, as in the paper's formula, and the layers that weigh aren't there. Change it to ablate them (Table 9)."""
    group_width: PositiveFloat = 1.0
    """Channels of a group in stages 1-3 as a multiple of C / L, C being the stage's channels and L its chunk length: 1
    as published. Set 0.5 or 2 to ablate it (Table 8): the layers over chunks are half or twice as wide then."""
    chunk_shape: ChunkShape = "windows"
    """Chunks on maps of another size than the network was made for, as at `test.crop_size`. `windows`: each keeps the
    rows and columns that it had, and maps are padded to multiples of it. Choose `padded_line`, the published formula
    with the line of tokens padded to a multiple of the chunk length, or `padded_side`, the same with rows and columns,
    to ablate it; both then also train on crops that the chunk lengths don't divide."""
    chunk_crop_size: PositiveInt | None = None
    """Crop size whose chunks the windows are, pixels; null: `clip.crop_size`. Set 224 to train a network with the
    published chunk lengths, or its weights, on other crops."""
    block_order: BlockOrder = "temporal_first"
    """Which of a block's two token layers comes first, the temporal one as published; `parallel`: both take the block's
    input. Change it to ablate the order in video networks (Table 11)."""
    block_skip: BlockSkip = "published"
    """`published`: the running sum goes around the first of the two token layers, whose result reaches the output only
    through the second. `standard`: a residual sum around each. Change it to ablate the skip (Table 11)."""
    init: Literal["published", "random_projection"]
    """`published`: temporal FC 0 and its projection all ones, as released (a saddle point: the temporal path starts
    through float noise). `random_projection`: the same with a random projection, so that it learns from step one."""

    @model_validator(mode="after")
    def _ablations_are_possible(self) -> Self:
        faults = []
        if self.branches is not None and (not self.branches or len(set(self.branches)) < len(self.branches)):
            faults.append(f"branches is {list(self.branches)}; name one to three different ones, or null for all")
        if self.group_width not in GROUP_WIDTHS:
            faults.append(f"group_width is {self.group_width:g}; it must be 0.5, 1 or 2")
        if self.block_order == "parallel" and self.block_skip == "published":
            faults.append("block_skip is published, which goes around the first of two layers; parallel needs standard")
        if self.temporal != "mixed" and (self.block_order, self.block_skip) != ("temporal_first", "published"):
            faults.append(
                f"block_order is {self.block_order} and block_skip {self.block_skip}; with temporal: {self.temporal} "
                "there are no temporal layers to order, so leave them out"
            )
        if self.chunk_crop_size is not None and self.chunk_shape != "windows":
            faults.append(f"chunk_crop_size is of windows alone; leave it out with chunk_shape: {self.chunk_shape}")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def chunks(self, crop_size: int) -> tuple[Chunks, ...]:
        """The chunks of each stage where the network is made for a crop, pixels."""
        return stage_chunks(
            self.chunk_lengths, crop_size=crop_size, shape=self.chunk_shape, chunk_crop_size=self.chunk_crop_size
        )

    def shape_faults(self, crop_size: int) -> list[str]:
        """What keeps the network from being made for a crop, each fault led by its dotted field."""
        faults_with = partial(
            shape_faults,
            embed_dims=self.embed_dims,
            chunk_lengths=self.chunk_lengths,
            crop_size=crop_size,
            group_width=self.group_width,
            chunk_shape=self.chunk_shape,
        )
        faults = faults_with(chunk_crop_size=self.chunk_crop_size)
        if faults and self.chunk_crop_size is None and not faults_with(chunk_crop_size=PUBLISHED_CROP_SIZE):
            faults[-1] += f"; model.chunk_crop_size: {PUBLISHED_CROP_SIZE} keeps the shapes that chunks have there"
        return faults
