"""Weights for a network that differs: what means the same carries over, and only that."""

import re
from dataclasses import replace

import pytest
import torch

from morphmlp.config import ModelConfig
from morphmlp.config.start import StartConfig
from morphmlp.errors import ConfigError
from morphmlp.models import MorphMLP
from morphmlp.models.presets import preset
from morphmlp.models.weights.carry_over import carried_over
from morphmlp.models.weights.deduce import describe_tensors
from morphmlp.models.weights.describe import HEAD, describe_model, expected_state
from morphmlp.models.weights.fit import fit_weights

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
FITTING = StartConfig(weights="w.pth", carry="fitting")


def fitted(there=TINY, here=TINY, *, frames=(4, 4), told=True, head_rows=None, **changes):
    """What a file of one network gives another; `told`: the file tells its chunk lengths, as own checkpoints do."""
    torch.manual_seed(0)
    state = MorphMLP(there, num_frames=frames[0], crop_size=32).state_dict()
    file = describe_model(there, num_frames=frames[0]) if told else describe_tensors(state)
    return state, fit_weights(
        state,
        MorphMLP(here, num_frames=frames[1], crop_size=32).state_dict(),
        file=file,
        asked=describe_model(here, num_frames=frames[1]),
        start=StartConfig(weights="w.pth", carry="fitting", **changes),
        head_rows=head_rows,
    )


def fresh(here, result, frames=4):
    return set(MorphMLP(here, num_frames=frames, crop_size=32).state_dict()) - set(result.state)


def test_of_the_same_network_everything_carries_over():
    state, result = fitted()
    assert result.state.keys() == state.keys()
    assert all(torch.equal(result.state[name], state[name]) for name in state)
    assert result.notes == (
        f"{len(state)} of {len(state)} tensors carry over",
        "the head's rows are taken to be in the manifest's order",
    )


def test_where_a_chunk_length_differs_the_layers_over_its_tokens_start_fresh():
    here = replace(TINY, chunk_lengths=(4, 16, 2, 1))
    _, result = fitted(here=here)
    assert fresh(here, result) == {
        f"blocks2.{block}.fc.mlp_{layer}.{kind}" for block in (0, 1) for layer in "hw" for kind in ("weight", "bias")
    }
    assert (
        "fresh: 8 tensors of layers over chunks, blocks2.*.fc.mlp_h, blocks2.*.fc.mlp_w "
        "(chunk length of stage 2: 8 -> 16)"
    ) in result.notes


def test_in_stage_4_a_chunk_length_concerns_the_layer_over_the_frame_alone():
    state = expected_state(TINY, num_frames=4, crop_size=32)
    here = replace(describe_model(TINY, num_frames=4), chunk_lengths=(4, 8, 2, 4))
    fits, _ = carried_over(state, state, file=describe_model(TINY, num_frames=4), asked=here)
    assert state.keys() - fits.keys() == {"blocks4.0.fc.mlp_h.weight", "blocks4.0.fc.mlp_h.bias"}


def test_with_other_frames_the_layers_that_mix_time_steps_start_fresh_whatever_their_shape():
    there = replace(TINY, embed_dims=(16, 16, 16, 16), chunk_lengths=(4, 4, 4, 1))
    state, result = fitted(there, there, frames=(4, 8))
    missing = fresh(there, result, frames=8)
    assert missing == {name for name in state if ".t_fc.mlp_t." in name}
    assert "fresh: 10 tensors of layers that mix time steps (4 -> 8 frames)" in result.notes


def test_further_blocks_start_fresh_and_surplus_ones_are_left_behind():
    deeper = replace(TINY, depths=(1, 3, 1, 1))
    state, result = fitted(here=deeper)
    missing = fresh(deeper, result)
    assert missing
    assert all(name.startswith("blocks2.2.") for name in missing)
    assert result.state.keys() == state.keys()
    assert f"fresh: {len(missing)} tensors of further blocks (depth of stage 2: 2 -> 3)" in result.notes
    _, back = fitted(there=deeper)
    assert fresh(TINY, back) == set()
    beginning = f"left behind: {len(missing)} tensors that the network has no place for (blocks2.*."
    assert any(note.startswith(beginning) for note in back.notes)


def test_tensors_of_another_width_start_fresh():
    wider = replace(TINY, embed_dims=(16, 16, 24, 64))
    state, result = fitted(here=wider)
    assert all(value.shape == state[name].shape for name, value in result.state.items())
    assert "blocks4.0.mlp.fc1.weight" in fresh(wider, result)
    assert "blocks3.0.mlp.fc1.weight" in result.state
    assert any(
        note.startswith("fresh: ") and "of another shape (widths [16, 16, 24, 32] -> [16, 16, 24, 64]; hidden" in note
        for note in result.notes
    )


def test_a_head_of_other_classes_starts_fresh_and_so_does_one_that_is_to_be_replaced():
    for changes, here, why in (
        ({}, replace(TINY, num_classes=9), "5 -> 9 classes"),
        ({"replace_head": True}, TINY, "start_from.replace_head"),
    ):
        _, result = fitted(here=here, **changes)
        assert fresh(here, result) == set(HEAD)
        assert f"fresh: 2 tensors of the head ({why})" in result.notes


def test_branches_that_the_network_does_not_have_are_left_behind():
    here = replace(TINY, branches=("height", "channel"))
    _, result = fitted(here=here)
    assert any(note.startswith("left behind: ") and "mlp_w" in note for note in result.notes)
    assert "blocks1.0.fc.mlp_h.weight" in result.state
    assert any("(branches height, width, channel -> height, channel)" in note for note in result.notes)


def test_branches_that_the_file_does_not_have_start_fresh():
    _, result = fitted(replace(TINY, branches=("height", "channel")))
    assert {name.split(".fc.")[1] for name in fresh(TINY, result)} == {
        f"{layer}.{kind}" for layer in ("mlp_w", "reweight.fc2") for kind in ("weight", "bias")
    }
    assert any("(branches height, channel -> height, width, channel)" in note for note in result.notes)


def test_weights_of_as_many_but_other_branches_start_fresh():
    there, here = (replace(TINY, branches=branches) for branches in (("height", "channel"), ("width", "channel")))
    _, result = fitted(there, here)
    weighing = {name for name in fresh(here, result) if "reweight" in name}
    assert weighing
    assert all(re.match(r"blocks[123]\.\d\.fc\.reweight\.fc2\.", name) for name in weighing)
    assert any("(branches height, channel -> width, channel)" in note for note in result.notes)
    assert "blocks4.0.fc.reweight.fc2.weight" in result.state  # there, both have the frame's and the channels'


def test_temporal_layers_that_the_file_does_not_have_start_fresh():
    state, result = fitted(replace(TINY, temporal="averaged"))
    missing = fresh(TINY, result)
    assert missing
    assert all(".t_fc." in name or ".t_norm1." in name for name in missing)
    assert result.state.keys() == state.keys()
    assert f"fresh: {len(missing)} tensors of the temporal layers (the file has none)" in result.notes


def test_each_tensor_that_starts_fresh_is_told_once():
    here = replace(
        TINY,
        depths=(1, 3, 2, 1),
        embed_dims=(16, 16, 24, 64),
        chunk_lengths=(8, 16, 4, 1),
        num_classes=9,
        branches=("width", "channel"),
    )
    _, result = fitted(here=here, frames=(4, 8))
    told = [int(note.split()[1]) for note in result.notes if note.startswith("fresh: ")]
    assert len(told) == 6
    assert sum(told) == len(fresh(here, result, frames=8))


def test_convolutions_of_an_image_network_start_fresh_or_get_a_time_axis():
    image = replace(TINY, temporal="none")
    _, without = fitted(image)
    assert "patch_embed1.proj1.weight" in fresh(TINY, without)
    assert any("convolutions without a time axis, start_from.inflate gives them one" in note for note in without.notes)
    _, given = fitted(image, inflate="centre")
    assert "patch_embed1.proj1.weight" in given.state
    assert "5 convolutions got a time axis (centre)" in given.notes


def test_options_that_have_nothing_to_do_are_refused():
    for changes, fault in (
        ({"inflate": "centre"}, "start_from.inflate is centre, but there are no 2-D weights for a video network"),
        ({"head_rows": [0, 1]}, "start_from.class_order names 2 rows"),
    ):
        with pytest.raises(ConfigError, match=fault):
            fitted(**changes)


def test_a_head_that_carries_over_is_brought_into_order():
    order = [4, 3, 2, 0, 1]
    state, result = fitted(here=replace(TINY, depths=(1, 3, 1, 1)), head_rows=order)
    assert torch.equal(result.state["head.weight"], state["head.weight"][order])
    assert any("start_from.class_order" in note for note in result.notes)


def test_colours_that_are_reversed_are_told():
    state, result = fitted(reverse_channels=True)
    name = "patch_embed1.proj1.weight"
    assert torch.equal(result.state[name], state[name].flip(1))
    assert "the first convolution's colours were reversed" in result.notes


def test_a_network_that_shares_nothing_but_the_head_is_refused():
    head = {name: torch.zeros(5) for name in HEAD}
    with pytest.raises(ConfigError, match="nothing of it carries over to a MorphMLP of depths"):
        carried_over(head, head, file=describe_model(TINY, num_frames=4), asked=describe_model(TINY, num_frames=4))


def test_a_file_of_no_published_size_that_does_not_tell_its_chunk_lengths_is_refused():
    with pytest.raises(ConfigError, match=r"its chunk lengths are unknown.* take a checkpoint of this project"):
        fitted(told=False)


def test_a_file_of_published_size_that_does_not_tell_its_chunk_lengths_is_taken_to_have_the_published_ones():
    published = preset("morphmlp_s_16x4").model
    here = replace(published, chunk_lengths=(28, 28, 28, 49))
    state = expected_state(published, num_frames=16, crop_size=224)
    fits, notes = carried_over(state, state, file=describe_tensors(state), asked=describe_model(here, num_frames=16))
    assert {name.split(".")[0] for name in state.keys() - fits.keys()} == {"blocks1"}
    assert "chunk lengths aren't in the file: taken to be the published [14, 28, 28, 49]" in notes


def test_frames_that_shapes_do_not_tell_are_taken_to_be_the_experiments_and_a_line_says_so():
    state = MorphMLP(TINY, num_frames=4, crop_size=32).state_dict()
    file = replace(describe_model(TINY, num_frames=4), num_frames=None, possible_frames=(2, 4, 8))
    for frames, carried in ((4, True), (6, False)):
        fits, notes = carried_over(state, state, file=file, asked=describe_model(TINY, num_frames=frames))
        assert ("blocks1.0.t_fc.mlp_t.weight" in fits) is carried
        assert ("the shapes fit 2 or 4 or 8 frames: taken to be the experiment's 4" in notes) is carried


def test_numbers_that_are_not_finite_are_refused():
    state = MorphMLP(TINY, num_frames=4, crop_size=32).state_dict()
    state["norm.bias"][0] = float("nan")
    asked = describe_model(TINY, num_frames=4)
    with pytest.raises(ConfigError, match=r"1 tensors hold numbers that aren't finite \(norm.bias\)"):
        fit_weights(state, state, file=asked, asked=asked, start=FITTING)
