"""Weights of one network for another that differs from it: which of them carry over.

A weight carries over where it means the same in both networks. Shapes alone don't tell that: every spatial MorphFC is a
`channels` x `channels` layer whatever its chunk length, and a temporal one often is for any number of frames.

Pure: state dicts in, state dicts and words out.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from morphmlp.config.shapes import temporal_tokens
from morphmlp.errors import ConfigError
from morphmlp.models.presets import PRESETS
from morphmlp.models.weights_description import HEAD, WeightsDescription, first_names

SPATIAL_LAYER = re.compile(r"blocks(\d)\.\d+\.fc\.mlp_[hw]\.")
"""Layers that mix the tokens of a chunk; the group is the stage, from 1."""
TIME_LAYER = re.compile(r"blocks\d\.\d+\.t_fc\.mlp_t\.")
"""Layers that mix time steps."""
WEIGHING_LAYER = re.compile(r"blocks[1-3]\.\d+\.fc\.reweight\.fc2\.")
"""Layers whose outputs belong to the branches in their order; stage 4 has two branches or no such layer."""


def carried_over(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, file: WeightsDescription, asked: WeightsDescription
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file that mean the same in a network.

    - Where a stage's chunk length differs, its height and width layers (stage 4: the one over the frame) start fresh.
    - Where clips have another number of time steps, the layers that mix them start fresh.
    - Where the branches are others, the layers that weigh them start fresh.
    - Tensors of another shape (other widths, classes, branches) start fresh, and so do those that the file doesn't
      have (further blocks). What the network has no place for is left behind.

    Args:
        state: The file's tensors.
        expected: The network's tensors; only names and shapes count.
        file: What the file's are.
        asked: What the network is.

    Returns:
        Those tensors, and lines for the user.

    Raises:
        ConfigError: Nothing carries over, or the file's chunk lengths can't be told.
    """
    shared = {name: value for name, value in state.items() if name in expected}
    fits = {name: value for name, value in shared.items() if value.shape == expected[name].shape}
    chunks, notes = _chunk_lengths(file), []
    changed = {
        stage: (there, here)
        for stage, (there, here) in enumerate(zip(chunks, asked.chunk_lengths or chunks, strict=True), start=1)
        if there != here
    }
    other_chunks = [name for name in fits if (found := SPATIAL_LAYER.match(name)) and int(found[1]) in changed]
    other_time = [name for name in fits if TIME_LAYER.match(name)] if _other_time_steps(file, asked) else []
    other_branches = [name for name in fits if WEIGHING_LAYER.match(name)] if file.branches != asked.branches else []
    for name in (*other_chunks, *other_time, *other_branches):
        del fits[name]
    if not any(name not in HEAD for name in fits):
        raise ConfigError([f"it is {file.in_words}; nothing of it carries over to {asked.in_words}"])
    notes.append(f"{len(fits)} of {len(expected)} tensors carry over")
    if other_chunks:
        stages = ", ".join(f"stage {stage}: {there} -> {here}" for stage, (there, here) in changed.items())
        notes.append(f"fresh: {len(other_chunks)} tensors of spatial layers whose chunk length differs ({stages})")
    if other_time:
        frames = f"{file.frames_in_words} -> {asked.num_frames} frames"
        notes.append(f"fresh: {len(other_time)} tensors of layers that mix time steps ({frames})")
    if other_branches:
        notes.append(f"fresh: {len(other_branches)} tensors of layers that weigh other branches")
    other_shape = [name for name in shared if name not in fits]
    notes += _listed("fresh, since of another shape", other_shape, other_chunks, other_time, other_branches)
    notes += _listed("fresh, since not in the file", [name for name in expected if name not in state])
    notes += _listed("left behind", [name for name in state if name not in expected])
    return fits, notes


def _listed(what: str, names: Sequence[str], *told: Sequence[str]) -> list[str]:
    rest = [name for name in names if not any(name in others for others in told)]
    return [f"{what}: {len(rest)} tensors ({first_names(rest)})"] if rest else []


def _chunk_lengths(file: WeightsDescription) -> tuple[int, ...]:
    """Those of the file; released files of published size don't tell theirs, which are known."""
    if file.chunk_lengths is not None:
        return file.chunk_lengths
    for preset in PRESETS.values():
        if (preset.model.depths, preset.model.embed_dims) == (file.depths, file.embed_dims):
            return preset.model.chunk_lengths
    raise ConfigError(
        [f"it is {file.in_words}; its chunk lengths can't be told, which start_from.carry: fitting needs to know"]
    )


def _other_time_steps(file: WeightsDescription, asked: WeightsDescription) -> bool:
    if not file.possible_frames or asked.num_frames is None:
        return False
    frames = file.possible_frames if file.num_frames is None else (file.num_frames,)
    return temporal_tokens(asked.num_frames) not in {temporal_tokens(count) for count in frames}
