"""The backbone, stem and four stages of blocks, and the classifier on it; one network for all published variants.

Parameter names and shapes are those of the released checkpoints (MTLab/MorphMLP, commit 62ebe80), so these load
without remapping. Maps are channels-last inside, channels-first at the borders.
"""

from collections.abc import Iterable
from functools import partial
from itertools import accumulate, repeat
from typing import cast

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from morphmlp.config import ModelConfig
from morphmlp.config.shapes import (
    NUM_STAGES,
    STEM_TEMPORAL_STRIDE,
    Chunks,
    channel_groups,
    temporal_groups,
    temporal_tokens,
)
from morphmlp.config.values import BlockOrder, BlockSkip
from morphmlp.errors import ConfigError
from morphmlp.models import autocast
from morphmlp.models.morphfc import FrameMorphFC, Mlp, SpatialMorphFC, TemporalMorphFC
from morphmlp.models.network import Network
from morphmlp.models.norm import LayerNorm
from morphmlp.models.sizes import ALL_BRANCHES, INPUT_CHANNELS

INIT_STD = 0.02

# Between channels-last maps and convolutions; each pattern above its inverse. An image is one time step inside.
TO_VIDEO_CONV = "b t h w c -> b c t h w"
FROM_VIDEO_CONV = "b c t h w -> b t h w c"

TO_IMAGE_CONV = "b 1 h w c -> b c h w"
FROM_IMAGE_CONV = "b c h w -> b 1 h w c"


class Stem(nn.Module):
    """Two convolutions that make `channels` of a clip: time by 1/2, rows and columns by 1/4."""

    def __init__(self, channels: int, *, image: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if image else nn.BatchNorm3d
        self.memory_format = torch.channels_last if image else torch.channels_last_3d
        self.from_conv = FROM_IMAGE_CONV if image else FROM_VIDEO_CONV
        self.proj1 = _halving_conv(
            INPUT_CHANNELS, channels // 2, image=image, time_kernel=3, time_stride=STEM_TEMPORAL_STRIDE
        )
        self.norm1 = norm(channels // 2)
        self.act = nn.GELU()
        self.proj2 = _halving_conv(channels // 2, channels, image=image)
        self.norm2 = norm(channels)

    def forward(self, clips: Float[Tensor, "b 3 *input"]) -> Float[Tensor, "b t h w c"]:
        """The map of the first stage, before its blocks."""
        channels_last = autocast.is_on(clips) or clips.is_cpu
        if channels_last:
            # 16-bit convolutions and those of CPUs are made for this order, and the blocks work in it. The weights keep
            # theirs: AdamW's fused kernel pairs weights and moments by their place in memory.
            clips = clips.contiguous(memory_format=self.memory_format)
        x = self.act(self.norm1(self.proj1(clips)))
        y: Tensor = rearrange(self.norm2(self.proj2(x)), self.from_conv)
        # A no-op, but on CPUs without instructions for bf16, whose convolutions give the other order.
        return y.contiguous() if channels_last else y


class Downsample(nn.Module):
    """The step between two stages: half the rows and columns, more channels, a norm."""

    def __init__(self, channels_in: int, channels_out: int, *, image: bool) -> None:
        super().__init__()
        self.to_conv = TO_IMAGE_CONV if image else TO_VIDEO_CONV
        self.from_conv = FROM_IMAGE_CONV if image else FROM_VIDEO_CONV
        self.proj = _halving_conv(channels_in, channels_out, image=image)
        self.norm = LayerNorm(channels_out)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h2 w2 d"]:
        """The next stage's map, before its blocks."""
        y: Tensor = self.norm(rearrange(self.proj(rearrange(x, self.to_conv)), self.from_conv))
        return y


class Block(nn.Module):
    """One residual unit: time, space, channels.

    As published, the running sum goes around the temporal layer: its result reaches the output through the spatial
    layer only, as drawn in the paper and coded in the published source. `order` and `skip` give the paper's other
    wirings (Table 11). The temporal layer is never dropped, the others are wherever their results are added.

    Drop path is drawn outside (`draw_kept`), so that the unit itself is a pure function: recomputed or compiled, it
    drops the same branches. (torch 2.15's Inductor draws with the rate of the block that it compiled first.)
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial: nn.Module,
        temporal: nn.Module | None,
        hidden: int,
        drop_path_rate: float,
        order: BlockOrder = "temporal_first",
        skip: BlockSkip = "published",
    ) -> None:
        super().__init__()
        self.order = order
        self.skip = skip
        if temporal is not None:
            self.t_norm1 = LayerNorm(channels)
        self.t_fc = temporal
        self.norm1 = LayerNorm(channels)
        self.fc = spatial
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels, hidden, channels)
        self.drop_path_rate = drop_path_rate

    def draw_kept(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "2 b 1 1 1 1"] | None:
        """Factors of the spatial and the channel branch, per clip: 0, or 1 / (1 - rate); None where none is dropped."""
        if not self.training or self.drop_path_rate == 0:
            return None
        stays = 1.0 - self.drop_path_rate
        # As torchvision's StochasticDepth draws them, without the seconds that a process needs to import it.
        return torch.stack([x.new_empty(len(x), 1, 1, 1, 1).bernoulli_(stays) / stays for _ in range(2)])

    def forward(
        self, x: Float[Tensor, "b t h w c"], kept: Float[Tensor, "2 b 1 1 1 1"] | None = None
    ) -> Float[Tensor, "b t h w c"]:
        """The map after this block; `kept` is what `draw_kept` gave."""
        spatial, channel = (None, None) if kept is None else kept
        if self.t_fc is None:
            y = _plus(x, self._spatial(x), spatial)
        elif self.order == "parallel":
            y = _plus(x + self._temporal(x), self._spatial(x), spatial)
        elif self.order == "temporal_first":
            u = x + self._temporal(x)
            y = _plus(x if self.skip == "published" else u, self._spatial(u), spatial)
        else:
            u = _plus(x, self._spatial(x), spatial)
            y = (x if self.skip == "published" else u) + self._temporal(u)
        return _plus(y, self.mlp(self.norm2(y)), channel)

    def _temporal(self, x: Tensor) -> Tensor:
        assert self.t_fc is not None
        y: Tensor = self.t_fc(self.t_norm1(x))
        return y

    def _spatial(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.norm1(x))
        return y


class Backbone(Network):
    """Stem and four stages for clips, or for images with `temporal: none`.

    A network is a subclass with layers behind the stages, whose constructor ends with `reset_parameters`. So the
    backbone's parameters have the same names in every network.

    Args:
        config: The network.
        num_frames: Frames per clip; an image network takes no notice.
        crop_size: Rows and columns of the training input, pixels. The network then takes any, multiples of 32 or not:
            each of its five halving convolutions makes ceil(n / 2) of n.

    Raises:
        ConfigError: Channels, chunk lengths and crop size don't fit together; every fault with its stage.
    """

    def __init__(self, config: ModelConfig, *, num_frames: int, crop_size: int) -> None:
        if faults := config.shape_faults(crop_size):
            raise ConfigError(faults)
        frames = () if config.temporal == "none" else (num_frames,)
        super().__init__(input_shape=(INPUT_CHANNELS, *frames, crop_size, crop_size))
        self.config = config
        self.chunks = config.chunks(crop_size)
        tokens = temporal_tokens(num_frames) if config.temporal == "mixed" else None
        dims = config.embed_dims

        self.patch_embed1 = Stem(dims[0], image=self.is_image)
        self.blocks1 = _stage_blocks(config, self.chunks[0], tokens=tokens)
        self.patch_embed2 = Downsample(dims[0], dims[1], image=self.is_image)
        self.blocks2 = _stage_blocks(config, self.chunks[1], tokens=tokens)
        self.patch_embed3 = Downsample(dims[1], dims[2], image=self.is_image)
        self.blocks3 = _stage_blocks(config, self.chunks[2], tokens=tokens)
        self.patch_embed4 = Downsample(dims[2], dims[3], image=self.is_image)
        self.blocks4 = _stage_blocks(config, self.chunks[3], tokens=tokens)

    def forward_features(self, clips: Float[Tensor, "b c *t h w"]) -> tuple[Float[Tensor, "b ..."], ...]:
        """The maps at the ends of the four stages, not normalised.

        Args:
            clips: `[b, 3, t, h, w]`, normalised floats; `[b, 3, h, w]` for an image model. Of any height and width;
                on others than the network was made for, chunks are as `config.chunk_shape` says.

        Returns:
            Four maps `[b, c, t, h, w]`, strides 4, 8, 16, 32 in rows and columns and 2 in time; `[b, c, h, w]` for an
            image model.

        Raises:
            ValueError: The input hasn't the channels and frames that the network was made for, or is of a size on
                which its chunks can't keep their shape.
        """
        self._check_input(clips)
        embeds = (self.patch_embed1, self.patch_embed2, self.patch_embed3, self.patch_embed4)
        maps, x, size = [], clips, tuple(clips.shape[-2:])
        for stage, (embed, blocks) in enumerate(zip(embeds, self.stage_blocks(), strict=True), start=1):
            x = self._run_blocks(blocks, embed(x), stage=stage, size=size)
            maps.append(rearrange(x, TO_IMAGE_CONV if self.is_image else TO_VIDEO_CONV))
        return tuple(maps)

    def stage_blocks(self) -> tuple[nn.ModuleList, ...]:
        """The blocks of the four stages."""
        return self.blocks1, self.blocks2, self.blocks3, self.blocks4

    def reset_parameters(self) -> None:
        """Draw the initial weights anew, by `config.init`; call it after `to_empty` of a model built on meta.

        As in the published source: linear layers normal with std 0.02, truncated at +-2 (so hardly at all), biases 0;
        norms 1 and 0; convolutions PyTorch's default. The temporal layers then start at zero output. On the meta device
        there is nothing to draw.
        """
        if next(self.parameters()).is_meta:
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2.0, b=2.0)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm | nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, TemporalMorphFC):
                nn.init.zeros_(module.mlp_t.weight)
                if self.config.init == "published":
                    nn.init.ones_(module.proj.weight)

    def _run_blocks(
        self, blocks: nn.ModuleList, x: Float[Tensor, "b t h w c"], *, stage: int, size: tuple[int, ...]
    ) -> Float[Tensor, "b t h w c"]:
        """The map after a stage's blocks; as many clips at once as `most_map_bytes` says."""
        kept = [cast(Block, block).draw_kept(x) for block in blocks]
        together = partial(self._run_together, blocks, stage=stage, size=size)
        if self.most_map_bytes is None:
            return together(x, kept)
        widest = int(x.nbytes * self.config.mlp_ratio)  # between the linear layers of a channel MLP
        few = max(1, len(x) * self.most_map_bytes // max(1, widest))
        if few >= len(x):
            return together(x, kept)
        factors = [repeat(None) if one is None else torch.split(one, few, dim=1) for one in kept]
        parts = zip(torch.split(x, few), *factors, strict=False)
        return torch.cat([together(part, of_part) for part, *of_part in parts])

    def _run_together(
        self,
        blocks: nn.ModuleList,
        x: Float[Tensor, "b t h w c"],
        kept: Iterable[Float[Tensor, "2 b 1 1 1 1"] | None],
        *,
        stage: int,
        size: tuple[int, ...],
    ) -> Float[Tensor, "b t h w c"]:
        for block, factors in zip(blocks, kept, strict=True):
            x = self.run_block(block, x, factors, stage=stage, size=size)
        return x

    def _check_input(self, clips: Tensor) -> None:
        if clips.shape[1:-2] != self.input_shape[:-2] or clips.ndim != len(self.input_shape) + 1:
            kind, axes = ("images", "[b, c, h, w]") if self.is_image else ("clips", "[b, c, t, h, w]")
            expected = ", ".join(map(str, self.input_shape[:-2]))
            raise ValueError(
                f"this MorphMLP was built for {kind} {axes} = [b, {expected}, h, w], got {list(clips.shape)}; "
                "change the input or build the model with its num_frames"
            )


class MorphMLP(Backbone):
    """The network that is published: a backbone with a linear head for `num_classes`; see `Backbone`."""

    def __init__(self, config: ModelConfig, *, num_frames: int, crop_size: int) -> None:
        super().__init__(config, num_frames=num_frames, crop_size=crop_size)
        self.norm = LayerNorm(config.embed_dims[-1])
        self.head = nn.Linear(config.embed_dims[-1], config.num_classes)
        self.reset_parameters()

    def forward(self, clips: Float[Tensor, "b c *t h w"]) -> Float[Tensor, "b k"]:
        """Logits, in training and in evaluation; see `forward_features` for the input."""
        return self.forward_head(self.forward_features(clips)[-1])

    def forward_head(
        self, last_map: Float[Tensor, "b c *t h w"], *, pre_logits: bool = False
    ) -> Float[Tensor, "b k"] | Float[Tensor, "b c"]:
        """Logits from the last of `forward_features`' maps: norm, mean over all tokens, linear layer.

        With `pre_logits` what the linear layer gets.
        """
        x = self.norm(rearrange(last_map, FROM_IMAGE_CONV if self.is_image else FROM_VIDEO_CONV))
        pooled: Tensor = reduce(x, "b t h w c -> b c", "mean")
        return pooled if pre_logits else cast(Tensor, self.head(pooled))


class MorphMLPFeatures(Backbone):
    """A MorphMLP without its head; weights of a classifier load by name, but for `norm` and `head`."""

    def __init__(self, config: ModelConfig, *, num_frames: int, crop_size: int) -> None:
        super().__init__(config, num_frames=num_frames, crop_size=crop_size)
        self.channels: tuple[int, ...] = config.embed_dims
        """Channels of the four maps."""
        self.reductions = (4, 8, 16, 32)
        """Rows and columns of the input over those of each map."""
        self.reset_parameters()

    def forward(self, clips: Float[Tensor, "b c *t h w"]) -> tuple[Float[Tensor, "b ..."], ...]:
        """The four maps; see `forward_features`."""
        return self.forward_features(clips)


def drop_path_rates(rate: float, depths: tuple[int, ...]) -> tuple[float, ...]:
    """Stochastic depth of every block: linear from 0 at the first to `rate` at the last."""
    total = sum(depths)
    return tuple(rate * block / max(total - 1, 1) for block in range(total))


def _plus(x: Tensor, branch: Tensor, kept: Tensor | None) -> Tensor:
    """The residual sum with a branch that drop path scales by `kept`, in one pass over the maps."""
    return x + branch if kept is None else torch.addcmul(x, branch, kept.to(branch.dtype))


def _stage_blocks(config: ModelConfig, chunks: Chunks, *, tokens: int | None) -> nn.ModuleList:
    """The blocks of the stage of these chunks; `tokens` is None where no temporal layer is wanted."""
    stage = chunks.stage - 1
    channels = config.embed_dims[stage]
    start = (0, *accumulate(config.depths))[stage]
    rates = drop_path_rates(config.drop_path_rate, config.depths)[start : start + config.depths[stage]]
    return nn.ModuleList(
        Block(
            channels,
            spatial=_spatial_layer(config, chunks),
            temporal=None
            if tokens is None
            else TemporalMorphFC(channels, tokens=tokens, groups=temporal_groups(channels, tokens)),
            hidden=int(channels * config.mlp_ratio),
            drop_path_rate=rate,
            order=config.block_order,
            skip=config.block_skip,
        )
        for rate in rates
    )


def _spatial_layer(config: ModelConfig, chunks: Chunks) -> SpatialMorphFC | FrameMorphFC:
    channels = config.embed_dims[chunks.stage - 1]
    branches, weighted = config.branches or ALL_BRANCHES, config.branch_sum == "weighted"
    if chunks.stage == NUM_STAGES:
        return FrameMorphFC(channels, chunks=chunks, branches=branches, weighted=weighted)
    groups = int(channel_groups(chunks.length, config.group_width, stage=chunks.stage))
    return SpatialMorphFC(channels, chunks=chunks, groups=groups, branches=branches, weighted=weighted)


def _halving_conv(
    channels_in: int, channels_out: int, *, image: bool, time_kernel: int = 1, time_stride: int = 1
) -> nn.Conv2d | nn.Conv3d:
    """A 3x3 convolution that halves rows and columns; the time arguments are for clips only."""
    if image:
        return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1)
    return nn.Conv3d(
        channels_in,
        channels_out,
        kernel_size=(time_kernel, 3, 3),
        stride=(time_stride, 2, 2),
        padding=(time_kernel // 2, 1, 1),
    )
