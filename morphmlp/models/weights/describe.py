"""What network a set of tensors belongs to, by names and shapes, and where two networks differ.

Names are those of the released checkpoints, and of torchvision's ResNet-50.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from morphmlp.config import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.shapes import (
    GROUP_WIDTHS,
    NUM_STAGES,
    STEM_TEMPORAL_STRIDE,
    Chunks,
    temporal_groups,
    temporal_tokens,
    trained_window,
)
from morphmlp.config.values import BlockOrder, BlockSkip, Branch, BranchSum, Temporal
from morphmlp.errors import CheckpointError
from morphmlp.models.build import build_network
from morphmlp.models.morphfc import ALL_BRANCHES
from morphmlp.models.parts import part_of
from morphmlp.models.presets import PRESETS, Preset
from morphmlp.models.segmentation.decoders import SemanticFpn, UperNet
from morphmlp.models.segmentation.resnet import DEPTHS, DIMS, ResNetBackbone

NAMES_SHOWN = 3
"""Tensors that a report names; the rest is counted."""
FIRST_CONVOLUTION = "patch_embed1.proj1.weight"
RESNET_CONVOLUTION = "conv1.weight"
HEAD = ("head.weight", "head.bias")
RESNET_HEAD = ("fc.weight", "fc.bias")
CLASSIFIER = frozenset({*HEAD, *RESNET_HEAD, "norm.weight", "norm.bias"})
"""What a classifier has behind its last stage, and a network that segments hasn't."""
_ROW_PER_CLASS = re.compile(r"(head|fc|decoder\.(classifier|auxiliary\.1)\.conv)\.(weight|bias)")
_DECODER = ("decoder.", "norms.")
_RESNET_BLOCK = "layer1.0.conv1.weight"
_COUNTER = ".num_batches_tracked"
"""BatchNorm's count of updates, which nothing reads and old files don't have."""
TEMPORAL_LAYER = re.compile(r"blocks\d\.\d+\.(t_fc|t_norm1)\.")
"""Beginning of the names of MorphFC_t's tensors, its norm's included."""
_BRANCH_LAYER = re.compile(r"blocks[1-3]\.\d+\.fc\.mlp_([hwc])\.")
"""Layers of one branch; the group is the branch's first letter. In stage 4 `mlp_h` stands for height or width."""
_CHUNK_LAYER = re.compile(r"blocks1\.\d+\.fc\.mlp_[hw]\.weight")
"""Layers over chunks of the first stage, whose size over its channels is the width of groups."""
PUBLISHED_WIRING: tuple[BlockOrder, BlockSkip] = ("temporal_first", "published")
_PUBLISHED_FRAMES = (16, 32)
"""Frames of the released models; at their widths some other numbers of frames give the same shapes."""

Kind = Literal["video", "video without temporal layers", "image"]
_KINDS: dict[Temporal, Kind] = {"mixed": "video", "averaged": "video without temporal layers", "none": "image"}
_FourInts = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class WeightsDescription:
    """The network that a set of tensors belongs to."""

    kind: Kind
    """`video without temporal layers`: convolutions over time, but no MorphFC_t. So are the released image-trained
    files, and networks with `temporal: averaged`."""
    depths: _FourInts
    """Blocks per stage."""
    embed_dims: _FourInts
    """Channels per stage."""
    mlp_hidden: _FourInts
    """Hidden channels of the stages' channel MLPs."""
    num_classes: int | None
    """Rows of the head; None: there is no head."""
    num_frames: int | None
    """Frames per clip; None: there are no temporal layers, or their shapes leave it open, see `possible_frames`."""
    possible_frames: tuple[int, ...]
    """Numbers of frames that give these shapes (an odd one has those of the next even one); none without temporal
    layers."""
    chunk_lengths: _FourInts | None
    """None: the file doesn't say, and no shape does."""
    chunk_shapes: tuple[str, ...] | None = None
    """Per stage the rows and columns that chunks were trained with, `2x14`, `line` where they are no rectangle, or how
    maps were padded; None: unknown."""
    branches: tuple[Branch, ...] = ALL_BRANCHES
    """Branches of the spatial layers, in the order of all."""
    branch_sum: BranchSum | None = "weighted"
    """None: there is one branch, whose sum is itself."""
    group_width: float | None = 1.0
    """Channels of a group over C / L; None: there are no layers over chunks in stages 1-3."""
    wiring: tuple[BlockOrder, BlockSkip] | None = None
    """Order of the token layers and the skip; None: the file doesn't say, or there are no temporal layers."""
    backbone: Literal["MorphMLP", "ResNet-50"] = "MorphMLP"
    decoder: str | None = None
    """What makes a class of each pixel, `semantic_fpn of 128 channels`; None: it's a classifier."""

    @property
    def size(self) -> str:
        """`MorphMLP-S`, or the depths and widths of a network that isn't a published one."""
        if self.backbone != "MorphMLP":
            return self.backbone
        for name, preset in PRESETS.items():
            if (preset.model.depths, preset.model.embed_dims) == (self.depths, self.embed_dims):
                return f"MorphMLP-{name.split('_')[1].upper()}"
        return f"a MorphMLP of depths {list(self.depths)}, widths {list(self.embed_dims)}"

    @property
    def frames_in_words(self) -> str:
        """`16`, or `2 or 4 or 8` where the shapes leave it open."""
        frames = self.possible_frames if self.num_frames is None else (self.num_frames,)
        return " or ".join(map(str, frames))

    @property
    def in_words(self) -> str:
        """One phrase, as in `MorphMLP-S (video), 16 frames, 400 classes`."""
        frames = [f"{self.frames_in_words} frames"] if self.possible_frames else []
        head = "no head" if self.num_classes is None else f"{self.num_classes} classes"
        only = [] if self.branches == ALL_BRANCHES else [f"branches {_listed(self.branches)} only"]
        if self.branch_sum == "plain":
            only.append("branches added unweighted")
        if self.group_width not in (None, 1):
            only.append(f"groups {self.group_width:g} times as wide")
        if self.wiring not in (None, PUBLISHED_WIRING):
            only.append(" with skip ".join(self.wiring))
        decoder = [] if self.decoder is None else [self.decoder]
        return ", ".join([f"{self.size} ({self.kind})", *frames, *decoder, head, *only])


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """Tensors of a file compared with those of a network, by name."""

    fitting: int
    """Tensors of the same name and shape."""
    missing: tuple[str, ...]
    """In the network only."""
    unexpected: tuple[str, ...]
    """In the file only."""
    mismatched: tuple[str, ...]
    """In both: `name [shape in the file] against [shape in the network]`."""

    @property
    def clean(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def in_words(self) -> str:
        """Counts, and the first names of each kind."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.mismatched}
        faults = [f"{len(names)} {kind} ({first_names(names)})" for kind, names in kinds.items() if names]
        return ", ".join([f"{self.fitting} tensors fit", *faults])


def first_names(names: Collection[str]) -> str:
    """The first names of a list, and how many there are more."""
    more = [f"and {len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return ", ".join([*list(names)[:NAMES_SHOWN], *more])


def without_prefix(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """A network's tensors under its own names, where a file has them under longer ones.

    Wrappers put a beginning before all names: `module.` (DDP), `backbone.`, `model.`, `_orig_mod.` (torch.compile).

    Returns:
        That beginning without its last point, empty where there is none; and all tensors.

    Raises:
        CheckpointError: Several networks, or two tensors of one name.
    """
    endings = (FIRST_CONVOLUTION, _RESNET_BLOCK)
    firsts = [(name, ending) for name in state for ending in endings if f".{name}".endswith(f".{ending}")]
    if len(firsts) > 1:
        several = first_names([name for name, _ in firsts])
        raise CheckpointError(f"holds several networks ({several}); save the tensors of one alone")
    prefix = firsts[0][0].removesuffix(firsts[0][1]) if firsts else ""
    found = {name.removeprefix(prefix): value for name, value in state.items()}
    if len(found) < len(state):
        twice = [name for name in state if prefix + name in state]
        raise CheckpointError(f"holds tensors twice, with and without {prefix!r} ({first_names(twice)})")
    return prefix.rstrip("."), found


def compare_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> KeyReport:
    """Which tensors of a file have their place in a network, of which only names and shapes count."""
    shapes = {name: (list(state[name].shape), list(expected[name].shape)) for name in expected if name in state}
    return KeyReport(
        fitting=sum(there == here for there, here in shapes.values()),
        missing=tuple(name for name in expected if name not in state and not name.endswith(_COUNTER)),
        unexpected=tuple(name for name in state if name not in expected),
        mismatched=tuple(f"{name} {there} against {here}" for name, (there, here) in shapes.items() if there != here),
    )


def expected_state(
    model: ModelConfig, *, num_frames: int, crop_size: int, segmentation: SegmentationConfig | None = None
) -> dict[str, Tensor]:
    """Names and shapes of a network's tensors, without values (on the meta device)."""
    with torch.device("meta"):
        network = build_network(model, num_frames=num_frames, crop_size=crop_size, segmentation=segmentation)
        return network.state_dict()


def has_row_per_class(name: str) -> bool:
    """Whether a tensor has one row for each class."""
    return _ROW_PER_CLASS.fullmatch(name) is not None


def fresh_head(
    expected: Iterable[str], *, file: WeightsDescription, asked: WeightsDescription, replace_head: bool
) -> tuple[list[str], str]:
    """The tensors of a network's head that aren't taken from a file, and why not; none and nothing where all are.

    A decoder can't come from a classifier. From the same decoder all is taken but what has a row for each class, where
    the classes differ or the head is to be replaced.
    """
    head = [name for name in expected if part_of(name) == "head"]
    if asked.decoder is not None and file.decoder is None:
        return head, "the file is a classifier's"
    if asked.decoder != file.decoder:
        return head, f"decoder {file.decoder} -> {asked.decoder or 'none'}"
    rows = [name for name in head if has_row_per_class(name)]
    if file.num_classes != asked.num_classes:
        return rows, f"{file.num_classes or 'no'} -> {asked.num_classes} classes"
    return (rows, "start_from.replace_head") if replace_head else ([], "")


def describe_tensors(state: Mapping[str, Tensor], stated: Preset | None = None) -> WeightsDescription:
    """The network that these tensors belong to.

    Kind, depths, widths and classes follow from names and shapes. So do frames, from the sizes of the temporal layers:
    at the published widths a file is taken for one of 16 or 32 frames where it can be one; elsewhere several numbers
    may give the same shapes. Chunk lengths are in no shape.

    Where the file itself states its network, frames and chunk lengths are taken from there.

    Raises:
        CheckpointError: The tensors aren't those of a complete network, or contradict what the file states.
    """
    resnet = _RESNET_BLOCK in state
    found = _resnet(None) if resnet else _deduced(state)
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


def describe_model(
    model: ModelConfig,
    *,
    num_frames: int,
    crop_size: int | None = None,
    segmentation: SegmentationConfig | None = None,
) -> WeightsDescription:
    """A configured network, to compare with what `describe_tensors` finds; without a crop, chunks have no shape."""
    kind = _KINDS[model.temporal]
    if segmentation is not None:
        auxiliary = segmentation.auxiliary_weight > 0
        decoder = _in_words(segmentation.decoder, segmentation.decoder_channels, auxiliary=auxiliary)
        if segmentation.backbone == "resnet50":
            return replace(_resnet(model.num_classes), decoder=decoder)
        classifier = describe_model(model, num_frames=num_frames, crop_size=crop_size)
        return replace(classifier, decoder=decoder)
    return WeightsDescription(
        kind=kind,
        depths=model.depths,
        embed_dims=model.embed_dims,
        mlp_hidden=_four(int(channels * model.mlp_ratio) for channels in model.embed_dims),
        num_classes=model.num_classes,
        num_frames=num_frames if kind == "video" else None,
        possible_frames=(num_frames,) if kind == "video" else (),
        chunk_lengths=model.chunk_lengths,
        chunk_shapes=None if crop_size is None else tuple(_shape_in_words(one) for one in model.chunks(crop_size)),
        branches=(branches := tuple(branch for branch in ALL_BRANCHES if branch in (model.branches or ALL_BRANCHES))),
        branch_sum=model.branch_sum if len(branches) > 1 else None,
        group_width=model.group_width if branches != ("channel",) else None,
        wiring=(model.block_order, model.block_skip) if kind == "video" else None,
    )


def differences(file: WeightsDescription, asked: WeightsDescription) -> list[str]:
    """Where two networks differ, `field X against Y`; kind and classes, which can be bridged, are left out.

    So is a decoder that the file hasn't: it starts fresh.
    """
    if file.backbone != asked.backbone:
        return [f"backbone {file.backbone} against {asked.backbone} (segmentation.backbone)"]
    found = [
        f"{name} {_listed(there)} against {_listed(here)}"
        for name, there, here in (
            ("depths", file.depths, asked.depths),
            ("widths", file.embed_dims, asked.embed_dims),
            ("hidden channels", file.mlp_hidden, asked.mlp_hidden),
            ("chunk lengths", file.chunk_lengths, asked.chunk_lengths),
            ("branches", file.branches, asked.branches),
            ("sum of branches", (file.branch_sum,), (asked.branch_sum,)),
            ("width of groups", (file.group_width,), (asked.group_width,)),
            ("order and skip of blocks", file.wiring, asked.wiring),
        )
        if there is not None and here is not None and there != here and None not in (*there, *here)
    ]
    if other_chunk_shapes(file, asked):
        there, here = file.chunk_shapes or (), asked.chunk_shapes or ()
        found.append(
            f"shapes of chunks {_listed(there)} against {_listed(here)} (model.chunk_crop_size names the crop that has "
            "the file's)"
        )
    if file.kind == "video" and asked.num_frames is not None:
        possible = file.possible_frames if file.num_frames is None else (file.num_frames,)
        if temporal_tokens(asked.num_frames) not in map(temporal_tokens, possible):
            found.append(f"frames {file.frames_in_words} against {asked.num_frames}")
    return found


def decoder_difference(file: WeightsDescription, asked: WeightsDescription) -> list[str]:
    """Where the file's decoder isn't the network's."""
    if file.decoder in (None, asked.decoder):
        return []
    if asked.decoder is None:
        return [f"decoder {file.decoder} against a classifier, which start_from.carry: fitting makes of its backbone"]
    return [
        f"decoder {file.decoder} against {asked.decoder}, start_from.replace_head: true starts with a fresh decoder"
    ]


def other_chunk_shapes(file: WeightsDescription, asked: WeightsDescription) -> list[int]:
    """The stages, from 1, whose chunks have one length and another shape.

    A network that asks for padding by name may take the weights of windows, to compare the two.
    """
    lengths = zip(file.chunk_lengths or (), asked.chunk_lengths or (), strict=False)
    shapes = zip(file.chunk_shapes or (), asked.chunk_shapes or (), strict=False)
    return [
        stage
        for stage, ((old_length, length), (old, new)) in enumerate(zip(lengths, shapes, strict=False), start=1)
        if old_length == length and old.split()[0] != new.split()[0]
        if old.startswith("padded") or "padded" not in new
    ]


def _shape_in_words(chunks: Chunks) -> str:
    assert chunks.side is not None
    if chunks.side**2 % chunks.length:
        return chunks.shape
    window = trained_window(chunks.length, chunks.side, stage=chunks.stage)
    shape = "line" if window is None else f"{window[0]}x{window[1]}"
    return shape if chunks.shape == "windows" else f"{shape} (else {chunks.shape})"


def _resnet(num_classes: int | None) -> WeightsDescription:
    return WeightsDescription(
        kind="image",
        depths=DEPTHS,
        embed_dims=DIMS,
        mlp_hidden=_four(channels // 4 for channels in DIMS),
        num_classes=num_classes,
        num_frames=None,
        possible_frames=(),
        chunk_lengths=None,
        backbone="ResNet-50",
    )


def _complete_resnet(found: WeightsDescription) -> dict[str, Tensor]:
    with torch.device("meta"):
        state: dict[str, Tensor] = ResNetBackbone(crop_size=32).state_dict()
        head = {} if found.num_classes is None else nn.Linear(DIMS[-1], found.num_classes).state_dict()
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
        return _in_words("semantic_fpn", channels, auxiliary=False)
    return _in_words("upernet", channels, auxiliary=decoder.auxiliary is not None)


def _in_words(decoder: str, channels: int, *, auxiliary: bool) -> str:
    return f"{decoder} of {channels} channels" + (" with an auxiliary head" if auxiliary else "")


def _deduced(state: Mapping[str, Tensor]) -> WeightsDescription:
    """What the tensors that every MorphMLP has say."""
    stem = [FIRST_CONVOLUTION, "patch_embed1.proj2.weight", *(f"patch_embed{k}.proj.weight" for k in (2, 3, 4))]
    hidden = [f"blocks{k}.0.mlp.fc1.weight" for k in range(1, NUM_STAGES + 1)]
    if lacking := [name for name in (*stem, *hidden) if name not in state or state[name].ndim < 2]:
        raise CheckpointError(f"isn't a MorphMLP: of {len(state)} tensors none is {first_names(lacking)}")
    dims = _four(state[name].shape[0] for name in stem[1:])
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
        depths=_four(len(list(stage)) for _, stage in groupby(blocks, key=lambda block: block[0])),
        embed_dims=dims,
        mlp_hidden=_four(state[name].shape[0] for name in hidden),
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


def _possible_frames(state: Mapping[str, Tensor], dims: _FourInts) -> tuple[int, ...]:
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
        temporal=next(temporal for temporal, kind in _KINDS.items() if kind == found.kind),
        branches=found.branches,
        branch_sum=found.branch_sum or "weighted",
        group_width=width,
        init="published",
    )
    frames = found.num_frames or next(iter(found.possible_frames or _PUBLISHED_FRAMES))
    state = expected_state(model, num_frames=frames, crop_size=32)
    return {name: value for name, value in state.items() if found.num_classes is not None or name not in HEAD}


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(map(str, values))}]"


def _four(numbers: Iterable[int]) -> _FourInts:
    one, two, three, four = numbers
    return one, two, three, four
