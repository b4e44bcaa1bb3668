"""Weights of one network for another that differs from it: which of them carry over.

A weight carries over where it means the same in both networks. Shapes alone don't show that: every spatial MorphFC is a
`channels` x `channels` layer whatever its chunk length, and a temporal one often is for any number of frames.

Pure: state dicts in, state dicts and words out.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from morphmlp.config.shapes import NUM_STAGES, temporal_tokens
from morphmlp.errors import ConfigError
from morphmlp.models.parts import part_of
from morphmlp.models.presets import PRESETS
from morphmlp.models.weights.describe import (
    TEMPORAL_LAYER,
    WeightsDescription,
    first_names,
    fresh_head,
    other_chunk_shapes,
)

BLOCK = re.compile(r"blocks(\d)\.(\d+)\.(.+)")
"""Stage, from 1, block, from 0, and the rest of the name."""
_SPATIAL_LAYER = re.compile(r"blocks(\d)\.\d+\.fc\.mlp_[hw]\.")
"""Layers that mix the tokens of a chunk; the group is the stage, from 1."""
_TIME_LAYER = re.compile(r"blocks\d\.\d+\.t_fc\.mlp_t\.")
"""Layers that mix time steps."""
_BRANCH_OR_WEIGHING = re.compile(r"blocks\d\.\d+\.fc\.(mlp_[hwc]|reweight)\.")
"""The branches of the spatial layers and what weighs them."""
_WEIGHING_OUTPUT = re.compile(r"blocks[1-3]\.\d+\.fc\.reweight\.fc2\.")
"""Layers whose outputs belong to the branches in their order; stage 4 has two branches or no such layer."""


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """One reason for tensors to start fresh."""

    names: frozenset[str]
    """Tensors of the network that it holds for; only the first rule that holds is named."""
    what: str
    why: str


def carried_over(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    file: WeightsDescription,
    asked: WeightsDescription,
    replace_head: bool = False,
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file that mean the same in a network.

    - Blocks beyond the file's number in a stage start fresh; surplus ones of the file are left behind.
    - Temporal layers start fresh where the file has none or wires them otherwise (`block_order`, `block_skip`), and a
      head of other classes, or one that is to be replaced; a decoder where the file has none or another.
    - Where a stage's chunk length, or the shape of its chunks, differs, its height and width layers (stage 4: the one
      over the frame) start fresh.
    - Where clips have another number of time steps, the layers that mix them start fresh.
    - Branches that the file doesn't have start fresh, and where the branches differ what weighs them.
    - Tensors of another shape (other widths) start fresh.

    Of the network's tensors, `expected`, only names and shapes count. With `replace_head` the head starts fresh in any
    case.

    Returns:
        Those tensors, and lines for the user: how many they are, one for each rule that held, and what was assumed.

    Raises:
        ConfigError: Nothing carries over, or the file's chunk lengths are unknown.
    """
    nothing = f"it is {file.in_words}; nothing of it carries over to {asked.in_words}"
    if file.backbone != asked.backbone:
        raise ConfigError([nothing])
    chunks, assumed = _chunk_lengths(file)
    rules = [
        _further_blocks(expected, file, asked),
        _temporal_layers(expected, file, asked),
        _head(expected, file, asked, replace_head=replace_head),
        _other_chunks(expected, chunks, file, asked),
        _other_time_steps(expected, file, asked),
        _other_branches(state, expected, file, asked),
        _other_shapes(state, expected, file, asked),
        _Rule(names=frozenset(expected.keys() - state.keys()), what="tensors", why="not in the file"),
    ]
    left = dict.fromkeys(expected)
    lines = []
    for rule in rules:
        if fresh := [name for name in left if name in rule.names]:
            lines.append(f"fresh: {len(fresh)} {rule.what} ({rule.why})")
            for name in fresh:
                del left[name]
    if all(part_of(name) == "head" for name in left):
        raise ConfigError([nothing])
    if behind := [name for name in state if name not in expected]:
        lines.append(f"left behind: {len(behind)} tensors that the network has no place for ({_patterns(behind)})")
    lines = [f"{len(left)} of {len(expected)} tensors carry over", *lines, *assumed]
    if file.num_frames is None and any(map(_TIME_LAYER.match, left)):
        lines.append(f"the shapes fit {file.frames_in_words} frames: taken to be the experiment's {asked.num_frames}")
    return {name: state[name] for name in left}, lines


def _chunk_lengths(file: WeightsDescription) -> tuple[tuple[int, ...], list[str]]:
    """Those of the file, and a line where they were taken for granted: files of published size may not state theirs."""
    if file.chunk_lengths is not None:
        return file.chunk_lengths, []
    if file.backbone != "MorphMLP":
        return (), []
    for preset in PRESETS.values():
        if (preset.model.depths, preset.model.embed_dims) == (file.depths, file.embed_dims):
            published = preset.model.chunk_lengths
            return published, [f"chunk lengths aren't in the file: taken to be the published {list(published)}"]
    raise ConfigError(
        [
            f"it is {file.in_words}; its chunk lengths are unknown, which start_from.carry: fitting needs: take a "
            "checkpoint of this project, or safetensors made of one, which state them"
        ]
    )


def _further_blocks(expected: Iterable[str], file: WeightsDescription, asked: WeightsDescription) -> _Rule:
    def further(name: str) -> bool:
        found = BLOCK.match(name)
        return found is not None and int(found[2]) >= file.depths[int(found[1]) - 1]

    why = _by_stage("depth", file.depths, asked.depths)
    return _Rule(names=frozenset(filter(further, expected)), what="tensors of further blocks", why=why)


def _temporal_layers(expected: Iterable[str], file: WeightsDescription, asked: WeightsDescription) -> _Rule:
    lacking = asked.kind == "video" and file.kind != "video"
    differs = None not in (file.wiring, asked.wiring) and file.wiring != asked.wiring
    names = frozenset(name for name in expected if (lacking or differs) and TEMPORAL_LAYER.match(name))
    why = (
        "the file has none"
        if lacking
        else f"order and skip of blocks {', '.join(file.wiring or ())} -> {', '.join(asked.wiring or ())}"
    )
    return _Rule(names=names, what="tensors of the temporal layers", why=why)


def _head(expected: Iterable[str], file: WeightsDescription, asked: WeightsDescription, *, replace_head: bool) -> _Rule:
    names, why = fresh_head(expected, file=file, asked=asked, replace_head=replace_head)
    return _Rule(names=frozenset(names), what="tensors of the head", why=why)


def _other_chunks(
    expected: Iterable[str], chunks: Sequence[int], file: WeightsDescription, asked: WeightsDescription
) -> _Rule:
    here = asked.chunk_lengths or tuple(chunks)
    changed = {stage for stage, (old, new) in enumerate(zip(chunks, here, strict=True), start=1) if old != new}
    reshaped = other_chunk_shapes(file, asked)
    names = frozenset(
        name
        for name in expected
        if (found := _SPATIAL_LAYER.match(name)) is not None and int(found[1]) in changed.union(reshaped)
    )
    what = f"tensors of layers over chunks, {_patterns(sorted(names))}"
    why = [_by_stage("chunk length", chunks, here)] if changed else []
    if reshaped:
        why.append(_by_stage("shape of chunks", file.chunk_shapes or (), asked.chunk_shapes or (), reshaped))
    return _Rule(names=names, what=what, why="; ".join(why))


def _other_time_steps(expected: Iterable[str], file: WeightsDescription, asked: WeightsDescription) -> _Rule:
    frames = file.possible_frames if file.num_frames is None else (file.num_frames,)
    differ = asked.num_frames is not None and temporal_tokens(asked.num_frames) not in map(temporal_tokens, frames)
    names = frozenset(name for name in expected if differ and _TIME_LAYER.match(name))
    why = f"{file.frames_in_words} -> {asked.num_frames} frames"
    return _Rule(names=names, what="tensors of layers that mix time steps", why=why)


def _other_branches(
    state: Mapping[str, Tensor], expected: Iterable[str], file: WeightsDescription, asked: WeightsDescription
) -> _Rule:
    names = frozenset(
        name
        for name in expected
        if file.branches != asked.branches
        and (_WEIGHING_OUTPUT.match(name) or (name not in state and _BRANCH_OR_WEIGHING.match(name)))
    )
    why = f"branches {', '.join(file.branches)} -> {', '.join(asked.branches)}"
    return _Rule(names=names, what="tensors of other branches and what weighs them", why=why)


def _other_shapes(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    file: WeightsDescription,
    asked: WeightsDescription,
) -> _Rule:
    names = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    why = [
        f"{what} {list(old)} -> {list(new)}"
        for what, old, new in (
            ("widths", file.embed_dims, asked.embed_dims),
            ("hidden channels", file.mlp_hidden, asked.mlp_hidden),
            ("width of groups", (file.group_width,), (asked.group_width,)),
        )
        if old != new
    ]
    if file.kind != "image" and asked.kind == "image":
        why.append("convolutions over time, an image network has none")
    elif any(state[name].ndim == 4 and expected[name].ndim == 5 for name in names):
        why.append("convolutions without a time axis, start_from.inflate gives them one")
    return _Rule(names=frozenset(names), what="tensors of another shape", why="; ".join(why) or _patterns(names))


def _by_stage(
    what: str, there: Sequence[object], here: Sequence[object], stages: Collection[int] = range(1, NUM_STAGES + 1)
) -> str:
    """`chunk length of stage 2: 8 -> 16, stage 3: 4 -> 2`, of those of the stages that differ."""
    changed = [
        f"stage {stage}: {old} -> {new}"
        for stage, (old, new) in enumerate(zip(there, here, strict=True), start=1)
        if old != new and stage in stages
    ]
    return f"{what} of {', '.join(changed)}"


def _patterns(names: Sequence[str]) -> str:
    """Tensors in few words, `blocks2.*.fc.mlp_h` for those of all blocks of a stage; the first few of them."""
    short = (BLOCK.sub(r"blocks\1.*.\3", name) for name in names)
    return first_names(list(dict.fromkeys(re.sub(r"\.(weight|bias)$", "", name) for name in short)))
