"""Networks as values that can be compared, and where two of them differ.

Names are those of the released checkpoints, and of torchvision's ResNet-50.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from morphmlp.config import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.shapes import (
    Chunks,
    temporal_tokens,
    trained_window,
)
from morphmlp.config.values import BlockOrder, BlockSkip, Branch, BranchSum, FourInts, Temporal
from morphmlp.errors import CheckpointError
from morphmlp.models.build import build_network
from morphmlp.models.parts import part_of
from morphmlp.models.presets import PRESETS
from morphmlp.models.sizes import ALL_BRANCHES, RESNET_DEPTHS, RESNET_DIMS

NAMES_SHOWN = 3
"""Tensors that a report names; the rest is counted."""
FIRST_CONVOLUTION = "patch_embed1.proj1.weight"
RESNET_CONVOLUTION = "conv1.weight"
HEAD = ("head.weight", "head.bias")
RESNET_HEAD = ("fc.weight", "fc.bias")
CLASSIFIER = frozenset({*HEAD, *RESNET_HEAD, "norm.weight", "norm.bias"})
"""What a classifier has behind its last stage, and a network that segments hasn't."""
_ROW_PER_CLASS = re.compile(r"(head|fc|decoder\.(classifier|auxiliary\.1)\.conv)\.(weight|bias)")
RESNET_BLOCK = "layer1.0.conv1.weight"
_COUNTER = ".num_batches_tracked"
"""BatchNorm's count of updates, which nothing reads and old files don't have."""
TEMPORAL_LAYER = re.compile(r"blocks\d\.\d+\.(t_fc|t_norm1)\.")
"""Beginning of the names of MorphFC_t's tensors, its norm's included."""
PUBLISHED_WIRING: tuple[BlockOrder, BlockSkip] = ("temporal_first", "published")

Kind = Literal["video", "video without temporal layers", "image"]
KINDS: dict[Temporal, Kind] = {"mixed": "video", "averaged": "video without temporal layers", "none": "image"}


@dataclass(frozen=True, kw_only=True)
class WeightsDescription:
    """The network that a set of tensors belongs to."""

    kind: Kind
    """`video without temporal layers`: convolutions over time, but no MorphFC_t. So are the released image-trained
    files, and networks with `temporal: averaged`."""
    depths: FourInts
    """Blocks per stage."""
    embed_dims: FourInts
    """Channels per stage."""
    mlp_hidden: FourInts
    """Hidden channels of the stages' channel MLPs."""
    num_classes: int | None
    """Rows of the head; None: there is no head."""
    num_frames: int | None
    """Frames per clip; None: there are no temporal layers, or their shapes leave it open, see `possible_frames`."""
    possible_frames: tuple[int, ...]
    """Numbers of frames that give these shapes (an odd one has those of the next even one); none without temporal
    layers."""
    chunk_lengths: FourInts | None
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
    endings = (FIRST_CONVOLUTION, RESNET_BLOCK)
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


def describe_model(
    model: ModelConfig,
    *,
    num_frames: int,
    crop_size: int | None = None,
    segmentation: SegmentationConfig | None = None,
) -> WeightsDescription:
    """A configured network, to compare with what `describe_tensors` finds; without a crop, chunks have no shape."""
    kind = KINDS[model.temporal]
    if segmentation is not None:
        auxiliary = segmentation.auxiliary_weight > 0
        decoder = decoder_in_words(segmentation.decoder, segmentation.decoder_channels, auxiliary=auxiliary)
        if segmentation.backbone == "resnet50":
            return replace(describe_resnet(model.num_classes), decoder=decoder)
        classifier = describe_model(model, num_frames=num_frames, crop_size=crop_size)
        return replace(classifier, decoder=decoder)
    return WeightsDescription(
        kind=kind,
        depths=model.depths,
        embed_dims=model.embed_dims,
        mlp_hidden=four_ints(int(channels * model.mlp_ratio) for channels in model.embed_dims),
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


def describe_resnet(num_classes: int | None) -> WeightsDescription:
    """The ResNet-50 of torchvision, to compare with what a file holds."""
    return WeightsDescription(
        kind="image",
        depths=RESNET_DEPTHS,
        embed_dims=RESNET_DIMS,
        mlp_hidden=four_ints(channels // 4 for channels in RESNET_DIMS),
        num_classes=num_classes,
        num_frames=None,
        possible_frames=(),
        chunk_lengths=None,
        backbone="ResNet-50",
    )


def decoder_in_words(decoder: str, channels: int, *, auxiliary: bool) -> str:
    """A decoder as descriptions name it: `semantic_fpn of 128 channels`."""
    return f"{decoder} of {channels} channels" + (" with an auxiliary head" if auxiliary else "")


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(map(str, values))}]"


def four_ints(numbers: Iterable[int]) -> FourInts:
    """One number for each stage."""
    one, two, three, four = numbers
    return one, two, three, four
