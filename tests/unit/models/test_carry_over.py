"""Weights for a network that differs: what means the same carries over, and only that."""

import re
from dataclasses import replace

import pytest
import torch

from morphmlp.config import ModelConfig
from morphmlp.errors import ConfigError
from morphmlp.models import MorphMLP
from morphmlp.models.weights import WeightsChanges, fit_weights
from morphmlp.models.weights_description import HEAD, describe, described

TINY = ModelConfig(
    depths=(1, 2, 1, 1),
    embed_dims=(16, 16, 24, 32),
    chunk_lengths=(4, 8, 2, 1),
    mlp_ratio=2.0,
    drop_path_rate=0.0,
    num_classes=5,
    temporal="mixed",
    init="random_projection",
)


def fitted(there=TINY, here=TINY, *, frames=(4, 4), told=True, **changes):
    """What a file of one network gives another; `told`: the file tells its chunk lengths, as own checkpoints do."""
    torch.manual_seed(0)
    state = MorphMLP(there, num_frames=frames[0], crop_size=32).state_dict()
    file = described(there, num_frames=frames[0]) if told else describe(state)
    return state, fit_weights(
        state,
        MorphMLP(here, num_frames=frames[1], crop_size=32).state_dict(),
        file=file,
        asked=described(here, num_frames=frames[1]),
        changes=WeightsChanges(only_fitting=True, **changes),
    )


def fresh(here, result, frames=4):
    return set(MorphMLP(here, num_frames=frames, crop_size=32).state_dict()) - set(result.state)


def test_of_the_same_network_everything_carries_over():
    state, result = fitted()
    assert result.state.keys() == state.keys()
    assert all(torch.equal(result.state[name], state[name]) for name in state)
    assert result.notes == (f"{len(state)} of {len(state)} tensors carry over",)


def test_where_a_chunk_length_differs_the_layers_over_its_tokens_start_fresh():
    here = replace(TINY, chunk_lengths=(4, 16, 2, 1))
    _, result = fitted(here=here)
    assert fresh(here, result) == {
        f"blocks2.{block}.fc.mlp_{layer}.{kind}" for block in (0, 1) for layer in "hw" for kind in ("weight", "bias")
    }
    assert "fresh: 8 tensors of spatial layers whose chunk length differs (stage 2: 8 -> 16)" in result.notes


def test_with_other_frames_the_layers_that_mix_time_steps_start_fresh_whatever_their_shape():
    there = replace(TINY, embed_dims=(16, 16, 16, 16), chunk_lengths=(4, 4, 4, 1))
    state, result = fitted(there, there, frames=(4, 8))
    missing = fresh(there, result, frames=8)
    assert missing == {name for name in state if ".t_fc.mlp_t." in name}
    assert any("2 or 3 or 4" in note or "4 -> 8 frames" in note for note in result.notes)


def test_further_blocks_start_fresh_and_surplus_ones_are_left_behind():
    deeper = replace(TINY, depths=(1, 3, 1, 1))
    state, result = fitted(here=deeper)
    missing = fresh(deeper, result)
    assert missing
    assert all(name.startswith("blocks2.2.") for name in missing)
    assert result.state.keys() == state.keys()
    _, back = fitted(there=deeper)
    assert fresh(TINY, back) == set()
    assert any(note.startswith("left behind: ") and "blocks2.2." in note for note in back.notes)


def test_tensors_of_another_width_start_fresh():
    wider = replace(TINY, embed_dims=(16, 16, 24, 64))
    state, result = fitted(here=wider)
    assert all(value.shape == state[name].shape for name, value in result.state.items())
    assert "blocks4.0.mlp.fc1.weight" in fresh(wider, result)
    assert "blocks3.0.mlp.fc1.weight" in result.state
    assert any(note.startswith("fresh, since of another shape: ") for note in result.notes)


def test_a_head_of_other_classes_starts_fresh_and_so_does_one_that_is_to_be_replaced():
    for changes, here in (({}, replace(TINY, num_classes=9)), ({"replace_head": True}, TINY)):
        _, result = fitted(here=here, **changes)
        assert fresh(here, result) == set(HEAD)


def test_branches_that_the_network_does_not_have_are_left_behind():
    here = replace(TINY, branches=("height", "channel"))
    _, result = fitted(here=here)
    assert any(note.startswith("left behind: ") and "mlp_w" in note for note in result.notes)
    assert "blocks1.0.fc.mlp_h.weight" in result.state


def test_weights_of_as_many_but_other_branches_start_fresh():
    there, here = (replace(TINY, branches=branches) for branches in (("height", "channel"), ("width", "channel")))
    _, result = fitted(there, here)
    weighing = {name for name in fresh(here, result) if "reweight" in name}
    assert weighing
    assert all(re.match(r"blocks[123]\.\d\.fc\.reweight\.fc2\.", name) for name in weighing)
    assert "fresh: 8 tensors of layers that weigh other branches" in result.notes
    assert "blocks4.0.fc.reweight.fc2.weight" in result.state  # there, both have the frame's and the channels'


def test_a_file_of_no_published_size_that_does_not_tell_its_chunk_lengths_is_refused():
    with pytest.raises(ConfigError, match="its chunk lengths can't be told"):
        fitted(told=False)


def test_numbers_that_are_not_finite_are_refused():
    state = MorphMLP(TINY, num_frames=4, crop_size=32).state_dict()
    state["norm.bias"][0] = float("nan")
    asked = described(TINY, num_frames=4)
    with pytest.raises(ConfigError, match=r"1 tensors hold numbers that aren't finite \(norm.bias\)"):
        fit_weights(state, state, file=asked, asked=asked, changes=WeightsChanges(only_fitting=True))
