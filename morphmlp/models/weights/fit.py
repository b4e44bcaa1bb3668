"""Brings weights into the form that a network takes: time axes, heads, class order, colours.

What isn't asked for isn't done.

Pure: state dicts in, state dicts and words out. `describe` says what the weights are.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import repeat
from torch import Tensor

from morphmlp.config.start import StartConfig
from morphmlp.errors import ConfigError
from morphmlp.models.parts import part_of
from morphmlp.models.weights.carry_over import carried_over
from morphmlp.models.weights.describe import (
    CLASSIFIER,
    FIRST_CONVOLUTION,
    PUBLISHED_WIRING,
    RESNET_CONVOLUTION,
    TEMPORAL_LAYER,
    WeightsDescription,
    compare_keys,
    decoder_difference,
    differences,
    first_names,
    fresh_head,
    has_row_per_class,
)


@dataclass(frozen=True, kw_only=True)
class FittedWeights:
    """Tensors that a network can take as they are; those that it has beyond these keep their fresh values."""

    state: dict[str, Tensor]
    notes: tuple[str, ...]
    """What was done, and what stays fresh."""


def fit_weights(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    file: WeightsDescription,
    asked: WeightsDescription,
    start: StartConfig,
    head_rows: Sequence[int] | None = None,
) -> FittedWeights:
    """The tensors of a file for a network, changed as the options of `start_from` ask.

    Of the network's tensors, `expected`, only names and shapes count. `head_rows` are the file's rows for the classes
    of the network; None: row for row.

    Raises:
        ConfigError: They don't fit: the differences in one line, the tensors in another.
    """
    partly = start.carry == "fitting"
    if partly:
        faults = [*_inflate_faults(file, asked, start), *_class_order_faults(file, head_rows)]
    else:
        faults = [*differences(file, asked), *_bridge_faults(file, asked, start, head_rows)]
    fresh = _fresh(expected, file, asked, start)
    done, result = list[str](), dict(state)
    if not partly and asked.decoder not in (None, file.decoder):
        result = {name: value for name, value in state.items() if part_of(name) != "head" and name not in CLASSIFIER}
    if start.inflate is not None:
        done.append(f"{inflate(result, expected, start.inflate)} convolutions got a time axis ({start.inflate})")
    if faults:
        needed = {name: value for name, value in expected.items() if name in result or name not in fresh}
        tensors = [] if partly else [compare_keys(result, needed).in_words]
        raise ConfigError(
            [f"it is {file.in_words}; the experiment needs {asked.in_words}: {'; '.join(faults)}", *tensors]
        )
    if damaged := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ConfigError([f"{len(damaged)} tensors hold numbers that aren't finite ({first_names(damaged)})"])
    if start.reverse_channels:
        first = FIRST_CONVOLUTION if file.backbone == "MorphMLP" else RESNET_CONVOLUTION
        result[first] = result[first].flip(1)
        done.append("the first convolution's colours were reversed")
    if head_rows is not None:
        result = with_head_rows(result, head_rows)
    head_notes = _head_notes(file, asked, start, head_rows)
    if asked.decoder is not None:
        head_notes = _decoder_notes(fresh, file, asked, head_notes)
    if partly:
        result, carried = carried_over(result, expected, file=file, asked=asked, replace_head=start.replace_head)
        notes = [*carried, *done, *(head_notes if any(map(has_row_per_class, result)) else [])]
    else:
        result = {name: value for name, value in result.items() if not (name in fresh and part_of(name) == "head")}
        report = compare_keys(result, {name: value for name, value in expected.items() if name not in fresh})
        if not report.clean:
            raise ConfigError([report.in_words])
        taken = f"{report.fitting} of {len(expected)} tensors are the file's"
        notes = [taken, *done, *head_notes, *_other_notes(fresh, file, asked)]
    return FittedWeights(state=result, notes=(*notes, *_dtype_notes(result, expected)))


def inflate(state: dict[str, Tensor], expected: Mapping[str, Tensor], how: Literal["repeat", "centre"]) -> int:
    """Give each 2-D convolution the time axis that the network's has, in place; returns how many there were.

    `repeat`: the kernel at every time step, divided by their number; a clip that stands still gives the image's result,
    but for its ends, which are padded with zeros. `centre`: the kernel at the middle step, zeros elsewhere; a frame
    gives the image's result, whatever is next to it.
    """
    flat = [name for name in state if name in expected and state[name].ndim == 4 and expected[name].ndim == 5]
    for name in flat:
        kernel, length = state[name], expected[name].shape[2]
        over_time = repeat(kernel, "o i h w -> o i t h w", t=length)
        if how == "repeat":
            state[name] = over_time / length
        else:
            state[name] = torch.zeros_like(over_time)
            state[name][:, :, length // 2] = kernel
    return len(flat)


def with_head_rows(state: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """The same weights, of whose head row `i` is the former row `rows[i]`."""
    return {name: value[list(rows)] if has_row_per_class(name) else value for name, value in state.items()}


def class_rows(order: Sequence[str], class_names: Sequence[str], *, where: str) -> list[int]:
    """The row of `order` that each class has; case, quotes, brackets, spaces and underscores make no difference.

    Raises:
        ConfigError: Names that stand twice, or on one side only; all of them.
    """
    rows = {_plain(name): row for row, name in enumerate(order)}
    classes = set(map(_plain, class_names))
    found = (
        ("names classes twice", _repeated(order)),
        ("can't be used, the manifest names classes twice", _repeated(class_names)),
        ("lacks classes of the manifest", [name for name in class_names if _plain(name) not in rows]),
        ("has classes that the manifest lacks", [name for name in order if _plain(name) not in classes]),
    )
    if faults := [f"{where}: {what}: {', '.join(map(repr, names))}" for what, names in found if names]:
        raise ConfigError(faults)
    return [rows[_plain(name)] for name in class_names]


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[\"'`\u2018\u2019\u201c\u201d()\[\]{}]", "", name).replace("_", " ").casefold().split())


def _repeated(names: Sequence[str]) -> list[str]:
    counts = Counter(map(_plain, names))
    return [name for name in names if counts[_plain(name)] > 1]


def _bridge_faults(
    file: WeightsDescription, asked: WeightsDescription, start: StartConfig, head_rows: Sequence[int] | None
) -> list[str]:
    """Differences of kind and classes that no option bridges, and options that have nothing to bridge."""
    faults = _inflate_faults(file, asked, start)
    if faults:
        pass  # they say how the kinds differ
    elif file.kind == "image" and asked.kind != "image" and start.inflate is None:
        faults.append("its convolutions have no time axis, start_from.inflate (repeat or centre) gives them one")
    elif file.kind != "image" and asked.kind == "image":
        faults.append("its convolutions have a time axis, an image network's have none")
    elif file.kind == "video" and asked.kind != "video":
        faults.append("it has temporal layers, with model.temporal: averaged there are none")
    if asked.decoder != file.decoder:
        faults += [] if start.replace_head and asked.decoder is not None else decoder_difference(file, asked)
    elif file.num_classes != asked.num_classes and not start.replace_head:
        faults.append(
            f"classes {file.num_classes or 'none'} against {asked.num_classes}, "
            "start_from.replace_head: true starts with a fresh head"
        )
    if head_rows is not None and asked.decoder != file.decoder:
        faults.append("start_from.class_order names rows of a head that a new decoder doesn't take; leave it out")
        return faults
    return [*faults, *_class_order_faults(file, head_rows)]


def _inflate_faults(file: WeightsDescription, asked: WeightsDescription, start: StartConfig) -> list[str]:
    if start.inflate is None or (file.kind == "image" and asked.kind != "image"):
        return []
    return [f"start_from.inflate is {start.inflate}, but there are no 2-D weights for a video network"]


def _class_order_faults(file: WeightsDescription, head_rows: Sequence[int] | None) -> list[str]:
    if head_rows is None or len(head_rows) == file.num_classes:
        return []
    return [f"start_from.class_order names {len(head_rows)} rows"]


def _fresh(
    expected: Mapping[str, Tensor], file: WeightsDescription, asked: WeightsDescription, start: StartConfig
) -> list[str]:
    """The network's tensors that the file can't have, or that aren't taken from it."""
    temporal = asked.kind == "video" and file.kind != "video"
    head, _ = fresh_head(expected, file=file, asked=asked, replace_head=start.replace_head)
    return [name for name in expected if (temporal and TEMPORAL_LAYER.match(name)) or name in head]


def _head_notes(
    file: WeightsDescription, asked: WeightsDescription, start: StartConfig, head_rows: Sequence[int] | None
) -> list[str]:
    if file.num_classes != asked.num_classes:
        return [f"fresh: the head ({file.num_classes or 'no'} classes in the file, {asked.num_classes} here)"]
    if start.replace_head:
        return [f"fresh: the head (start_from.replace_head; {asked.num_classes} classes in the file and here)"]
    if head_rows is not None:
        return ["the head's rows were brought into the manifest's order (start_from.class_order)"]
    return ["the head's rows are taken to be in the manifest's order"]


def _decoder_notes(
    fresh: Sequence[str], file: WeightsDescription, asked: WeightsDescription, head_notes: list[str]
) -> list[str]:
    """What becomes of a decoder; where it's the file's own, its classifiers are what a head is elsewhere."""
    if asked.decoder == file.decoder:
        return head_notes
    count = sum(part_of(name) == "head" for name in fresh)
    norms = "the norms of the maps and " if any(name.startswith("norms.") for name in fresh) else ""
    there = "a classifier, whose head is left" if file.decoder is None else file.decoder
    return [f"fresh: {norms}the decoder, {count} tensors ({there} in the file, {asked.decoder} here)"]


def _other_notes(fresh: Sequence[str], file: WeightsDescription, asked: WeightsDescription) -> list[str]:
    """Temporal layers that start fresh, and what no shape could confirm."""
    notes = []
    if temporal := [name for name in fresh if part_of(name) != "head"]:
        notes.append(f"fresh: {len(temporal)} tensors of the temporal layers ({first_names(temporal)})")
    if file.chunk_lengths is None and asked.chunk_lengths is not None:
        notes.append(f"chunk lengths aren't in the file: taken to be the experiment's {list(asked.chunk_lengths)}")
    if file.kind == "video" and file.wiring is None and asked.wiring not in (None, PUBLISHED_WIRING):
        notes.append(f"order and skip of blocks aren't in the file: taken to be {' with skip '.join(asked.wiring)}")
    if file.kind == "video" and file.num_frames is None:
        notes.append(f"the shapes fit {file.frames_in_words} frames: taken to be the experiment's {asked.num_frames}")
    return notes


def _dtype_notes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    others = Counter(str(value.dtype) for name, value in state.items() if value.dtype != expected[name].dtype)
    return [f"{count} tensors are stored as {dtype} and converted" for dtype, count in others.items()]
