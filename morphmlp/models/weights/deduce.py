"""What network a set of tensors belongs to, deduced from their names and shapes."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor, nn

from morphmlp.config.model import ModelConfig
from morphmlp.config.shapes import GROUP_WIDTHS, NUM_STAGES, STEM_TEMPORAL_STRIDE, temporal_groups
from morphmlp.config.values import FourInts
from morphmlp.errors import CheckpointError
from morphmlp.models.presets import PRESETS, Preset
from morphmlp.models.segmentation.decoders import SemanticFpn, UperNet
from morphmlp.models.segmentation.resnet import ResNetBackbone
from morphmlp.models.sizes import ALL_BRANCHES, RESNET_DIMS
from morphmlp.models.weights.describe import (
    CLASSIFIER,
    FIRST_CONVOLUTION,
    HEAD,
    KINDS,
    RESNET_BLOCK,
    RESNET_HEAD,
    TEMPORAL_LAYER,
    Kind,
    WeightsDescription,
    compare_keys,
    decoder_in_words,
    describe_model,
    describe_resnet,
    differences,
    expected_state,
    first_names,
    four_ints,
)

_DECODER = ("decoder.", "norms.")
_BRANCH_LAYER = re.compile(r"blocks[1-3]\.\d+\.fc\.mlp_([hwc])\.")
"""Layers of one branch; the group is the branch's first letter. In stage 4 `mlp_h` stands for height or width."""
_CHUNK_LAYER = re.compile(r"blocks1\.\d+\.fc\.mlp_[hw]\.weight")
"""Layers over chunks of the first stage, whose size over its channels is the width of groups."""
_PUBLISHED_FRAMES = (16, 32)
"""Frames of the released models; at their widths some other numbers of frames give the same shapes."""


def describe_tensors(state: Mapping[str, Tensor], stated: Preset | None = None) -> WeightsDescription:
    """The network that these tensors belong to.

    Kind, depths, widths and classes follow from names and shapes. So do frames, from the sizes of the temporal layers:
    at the published widths a file is taken for one of 16 or 32 frames where it can be one; elsewhere several numbers
    may give the same shapes. Chunk lengths are in no shape.

    Where the file itself states its network, frames and chunk lengths are taken from there.

    Raises:
        CheckpointError: The tensors aren't those of a complete network, or contradict what the file states.
    """
    resnet = RESNET_BLOCK in state
    found = describe_resnet(None) if resnet else _deduced(state)
    head = _decoder_of(state, found.embed_dims)
    if head is not None:
        found = replace(found, decoder=_decoder_in_words(head), num_classes=head.classifier.conv.out_channels)
    elif resnet and RESNET_HEAD[0] in state:
        found = replace(found, num_classes=state[RESNET_HEAD[0]].shape[0])
    complete = _complete_resnet(found) if resnet else _complete_network(found)
    if head is not None:
        complete = {name: value for name, value in complete.items() if name not in CLASSIFIER}
        complete |= {f"decoder.{name}": value for name, value in head.state_dict().items()}
        if not resnet:
            norms = nn.ModuleList(nn.LayerNorm(channels, device="meta") for channels in found.embed_dims)
            complete |= {f"norms.{name}": value for name, value in norms.state_dict().items()}
    report = compare_keys(state, complete)
    if not report.clean:
        raise CheckpointError(f"its tensors aren't exactly those of {found.size}: {report.in_words}")
    if stated is None or resnet:
        return found
    said = describe_model(stated.model, num_frames=stated.num_frames, crop_size=stated.crop_size)
    said = replace(said, decoder=found.decoder)
    contradictions = differences(replace(found, num_frames=None), said)
    if found.kind != said.kind:
        contradictions.append(f"{found.kind} against {said.kind}")
    if found.num_classes not in (None, said.num_classes):
        contradictions.append(f"classes {found.num_classes} against {said.num_classes}")
    if contradictions:
        raise CheckpointError(f"its tensors contradict the network that it states: {'; '.join(contradictions)}")
    frames = stated.num_frames if found.kind == "video" else None
    return replace(
        found,
        num_frames=frames,
        chunk_lengths=said.chunk_lengths,
        chunk_shapes=said.chunk_shapes,
        wiring=said.wiring,
    )


def _complete_resnet(found: WeightsDescription) -> dict[str, Tensor]:
    with torch.device("meta"):
        state: dict[str, Tensor] = ResNetBackbone(crop_size=32).state_dict()
        head = {} if found.num_classes is None else nn.Linear(RESNET_DIMS[-1], found.num_classes).state_dict()
    return state | {f"fc.{name}": value for name, value in head.items()}


def _decoder_of(state: Mapping[str, Tensor], dims: Sequence[int]) -> SemanticFpn | UperNet | None:
    """The decoder that these tensors are of, on meta, for maps of `dims` channels; None where they are of none."""
    if not any(name.startswith(_DECODER) for name in state):
        return None
    shapes = {name: value.shape for name, value in state.items() if value.ndim == 4}
    classes = shapes.get("decoder.classifier.conv.weight", (1,))[0]
    with torch.device("meta"):
        if (fusion := shapes.get("decoder.fusion.conv.weight")) is not None:
            auxiliary = any(name.startswith("decoder.auxiliary.") for name in state)
            return UperNet(dims, channels=fusion[0], classes=classes, dropout=0.0, auxiliary=auxiliary)
        channels = shapes.get("decoder.levels.0.0.conv.weight", (1,))[0]
        return SemanticFpn(dims, channels=channels, classes=classes, dropout=0.0)


def _decoder_in_words(decoder: SemanticFpn | UperNet) -> str:
    channels = decoder.classifier.conv.in_channels
    if isinstance(decoder, SemanticFpn):
        return decoder_in_words("semantic_fpn", channels, auxiliary=False)
    return decoder_in_words("upernet", channels, auxiliary=decoder.auxiliary is not None)


def _deduced(state: Mapping[str, Tensor]) -> WeightsDescription:
    """What the tensors that every MorphMLP has say."""
    stem = [FIRST_CONVOLUTION, "patch_embed1.proj2.weight", *(f"patch_embed{k}.proj.weight" for k in (2, 3, 4))]
    hidden = [f"blocks{k}.0.mlp.fc1.weight" for k in range(1, NUM_STAGES + 1)]
    if lacking := [name for name in (*stem, *hidden) if name not in state or state[name].ndim < 2]:
        raise CheckpointError(f"isn't a MorphMLP: of {len(state)} tensors none is {first_names(lacking)}")
    dims = four_ints(state[name].shape[0] for name in stem[1:])
    blocks = sorted({(int(m[1]), int(m[2])) for name in state if (m := re.match(r"blocks([1-4])\.(\d+)\.", name))})
    kind: Kind = "image" if state[FIRST_CONVOLUTION].ndim == 4 else "video without temporal layers"
    frames: tuple[int, ...] = ()
    if any(map(TEMPORAL_LAYER.match, state)):
        kind, frames = "video", _possible_frames(state, dims)
    published = dims in {preset.model.embed_dims for preset in PRESETS.values()}
    letters = {found[1] for name in state if (found := _BRANCH_LAYER.match(name))}
    likely = [count for count in _PUBLISHED_FRAMES if published and count in frames] or frames
    branches = tuple(branch for branch in ALL_BRANCHES if branch[0] in letters) or ALL_BRANCHES
    over_chunks = [value for name, value in state.items() if _CHUNK_LAYER.fullmatch(name) and value.ndim == 2]
    return WeightsDescription(
        kind=kind,
        depths=four_ints(len(list(stage)) for _, stage in groupby(blocks, key=lambda block: block[0])),
        embed_dims=dims,
        mlp_hidden=four_ints(state[name].shape[0] for name in hidden),
        num_classes=state[HEAD[0]].shape[0] if HEAD[0] in state else None,
        num_frames=likely[0] if len(likely) == 1 else None,
        possible_frames=frames,
        chunk_lengths=None,
        branches=branches,
        branch_sum=("weighted" if any(".reweight." in name for name in state) else "plain")
        if len(branches) > 1
        else None,
        group_width=over_chunks[0].shape[0] / dims[0] if over_chunks else None,
    )


def _possible_frames(state: Mapping[str, Tensor], dims: FourInts) -> tuple[int, ...]:
    """Even numbers of frames that give these sizes of temporal layers; no size is below the number of tokens."""
    layers = [state.get(f"blocks{k}.0.t_fc.mlp_t.bias") for k in range(1, NUM_STAGES + 1)]
    sizes = [layer.numel() for layer in layers if layer is not None]
    if len(sizes) < NUM_STAGES:
        raise CheckpointError("has temporal layers (t_fc) in some stages only; a MorphMLP has them in all or in none")
    possible = tuple(
        STEM_TEMPORAL_STRIDE * tokens
        for tokens in range(1, min(sizes) + 1)
        if all(tokens * (c // temporal_groups(c, tokens)) == size for c, size in zip(dims, sizes, strict=True))
    )
    if not possible:
        raise CheckpointError(f"its temporal layers of sizes {sizes} fit no number of frames at widths {list(dims)}")
    return possible


def _complete_network(found: WeightsDescription) -> dict[str, Tensor]:
    """All tensors of the network that was found; chunk lengths change none of them."""
    ratio = max(hidden / channels for hidden, channels in zip(found.mlp_hidden, found.embed_dims, strict=True))
    if any(int(c * ratio) != hidden for c, hidden in zip(found.embed_dims, found.mlp_hidden, strict=True)):
        ratio = math.nextafter(ratio, math.inf)  # int(49 * (1 / 49)) is 0
    width = found.group_width if found.group_width in GROUP_WIDTHS else 1.0  # of others the shapes will differ
    chunk = max(int(width), 1)
    model = ModelConfig(
        depths=found.depths,
        embed_dims=found.embed_dims,
        chunk_lengths=(chunk, chunk, chunk, 1),
        mlp_ratio=ratio,
        drop_path_rate=0.0,
        num_classes=found.num_classes or 1,
        temporal=next(temporal for temporal, kind in KINDS.items() if kind == found.kind),
        branches=found.branches,
        branch_sum=found.branch_sum or "weighted",
        group_width=width,
        init="published",
    )
    frames = found.num_frames or next(iter(found.possible_frames or _PUBLISHED_FRAMES))
    state = expected_state(model, num_frames=frames, crop_size=32)
    return {name: value for name, value in state.items() if found.num_classes is not None or name not in HEAD}
