"""What network tensors belong to, told from their names and shapes alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morphmlp.config import ModelConfig
from morphmlp.config.shapes import temporal_tokens
from morphmlp.errors import CheckpointError
from morphmlp.models.presets import PRESETS, Preset
from morphmlp.models.weights.deduce import describe_tensors
from morphmlp.models.weights.describe import compare_keys, describe_model, differences, expected_state

TINY = ModelConfig(
    depths=(1, 2, 1, 1),
    embed_dims=(16, 16, 24, 32),
    chunk_lengths=(4, 8, 2, 1),
    mlp_ratio=2.0,
    drop_path_rate=0.1,
    num_classes=5,
    temporal="mixed",
    init="random_projection",
)
VIDEO_PRESETS = sorted(name for name in PRESETS if not name.endswith("_image"))


def tensors(model=TINY, *, num_frames=4, crop_size=32):
    return expected_state(model, num_frames=num_frames, crop_size=crop_size)


def refusal_of(state, stated=None):
    with pytest.raises(CheckpointError) as caught:
        describe_tensors(state, stated)
    return str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_a_published_network_is_recognised_by_its_tensors(name):
    preset = PRESETS[name]
    found = describe_tensors(tensors(preset.model, num_frames=preset.num_frames, crop_size=preset.crop_size))
    asked = describe_model(preset.model, num_frames=preset.num_frames)
    assert replace(found, possible_frames=asked.possible_frames) == replace(asked, chunk_lengths=None, wiring=None)
    assert found.size == f"MorphMLP-{name.split('_')[1].upper()}"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (PRESETS["morphmlp_b_16x4"].model, "MorphMLP-B (video), 16 frames, 400 classes"),
        (PRESETS["morphmlp_s_image"].model, "MorphMLP-S (image), 1000 classes"),
        (
            replace(PRESETS["morphmlp_s_16x4"].model, temporal="averaged", num_classes=1000),
            "MorphMLP-S (video without temporal layers), 1000 classes",
        ),
        (
            replace(TINY, embed_dims=(16, 16, 16, 16), chunk_lengths=(1, 1, 1, 1)),
            "a MorphMLP of depths [1, 2, 1, 1], widths [16, 16, 16, 16] (video), 2 or 4 or 8 or 16 or 32 frames, "
            "5 classes",
        ),
    ],
)
def test_a_description_is_one_phrase(model, words):
    assert describe_tensors(tensors(model, num_frames=16, crop_size=224)).in_words == words


@pytest.mark.parametrize(("num_frames", "told"), [(16, 16), (15, 16), (32, 32), (31, 32), (36, None), (24, None)])
def test_frames_are_deduced_from_the_temporal_layers(num_frames, told):
    small = PRESETS["morphmlp_s_16x4"].model
    assert describe_tensors(tensors(small, num_frames=num_frames, crop_size=224)).num_frames == told


def test_frames_that_give_the_same_shapes_are_all_named():
    found = describe_tensors(tensors(num_frames=4))
    assert found.num_frames is None
    assert found.possible_frames == (2, 4, 8, 16)


@settings(max_examples=20)
@given(
    dims=st.tuples(*[st.integers(1, 12).map(lambda n: 4 * n)] * 4),
    num_frames=st.integers(1, 24),
    hidden=st.floats(0.3, 4.0),
)
def test_the_right_frames_are_always_among_the_possible_ones(dims, num_frames, hidden):
    model = replace(TINY, embed_dims=dims, chunk_lengths=(1, 1, 1, 1), mlp_ratio=hidden)
    found = describe_tensors(tensors(model, num_frames=num_frames))
    assert temporal_tokens(num_frames) in map(temporal_tokens, found.possible_frames)
    assert differences(found, describe_model(model, num_frames=num_frames)) == []


def test_what_the_file_states_settles_frames_and_chunk_lengths():
    found = describe_tensors(tensors(num_frames=4), Preset(model=TINY, num_frames=4, crop_size=32))
    assert (found.num_frames, found.chunk_lengths) == (4, (4, 8, 2, 1))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"depths": (1, 1, 1, 1)}, "depths [1, 2, 1, 1] against [1, 1, 1, 1]"),
        ({"mlp_ratio": 3.0}, "hidden channels [32, 32, 48, 64] against [48, 48, 72, 96]"),
        ({"num_classes": 6}, "classes 5 against 6"),
        ({"temporal": "averaged"}, "video against video without temporal layers"),
    ],
)
def test_tensors_that_contradict_what_the_file_states_are_refused(change, fault):
    stated = Preset(model=replace(TINY, **change), num_frames=4, crop_size=32)
    assert refusal_of(tensors(), stated) == f"its tensors contradict the network that it states: {fault}"


def test_stated_frames_that_the_shapes_rule_out_are_refused():
    stated = Preset(model=TINY, num_frames=12, crop_size=32)
    assert "frames 2 or 4 or 8 or 16 against 12" in refusal_of(tensors(), stated)


def test_weights_without_a_head_are_those_of_a_network():
    state = {name: value for name, value in tensors().items() if not name.startswith("head.")}
    assert describe_tensors(state).num_classes is None
    assert describe_tensors(state).in_words.endswith(", no head")


def test_other_networks_are_refused_with_what_they_lack():
    assert refusal_of(torch.nn.Linear(2, 2).state_dict()) == (
        "isn't a MorphMLP: of 2 tensors none is patch_embed1.proj1.weight, patch_embed1.proj2.weight, "
        "patch_embed2.proj.weight, and 6 more"
    )


def test_missing_unexpected_and_mismatched_tensors_are_counted_and_the_first_named():
    state = tensors()
    for name in ("norm.bias", "blocks2.1.fc.proj.bias", "blocks1.0.norm2.weight", "blocks1.0.norm2.bias"):
        del state[name]
    state["skip"] = state["norm.weight"]
    state["blocks1.0.fc.mlp_c.weight"] = torch.empty(16, 15)
    refusal = refusal_of(state)
    assert refusal.startswith(
        "its tensors aren't exactly those of a MorphMLP of depths [1, 2, 1, 1], widths [16, 16, 24, 32]: "
    )
    assert "4 missing (blocks1.0.norm2.weight, blocks1.0.norm2.bias, blocks2.1.fc.proj.bias, and 1 more)" in refusal
    assert "1 unexpected (skip)" in refusal
    assert "1 of another shape (blocks1.0.fc.mlp_c.weight [16, 15] against [16, 16])" in refusal


def test_a_block_missing_in_the_middle_is_missed():
    state = {
        name: value for name, value in tensors(replace(TINY, depths=(1, 3, 1, 1))).items() if "blocks2.1." not in name
    }
    assert "missing (blocks2.1." in refusal_of(state)


@pytest.mark.parametrize(
    ("stage", "fault"),
    [("blocks3", "has temporal layers (t_fc) in some stages only"), ("blocks", "missing (blocks1.0.t_fc.mlp_t.weight")],
)
def test_part_of_the_temporal_layers_is_not_enough(stage, fault):
    def kept(name):
        return not name.startswith(stage) or ".t_fc." not in name or (stage == "blocks" and name.endswith("mlp_t.bias"))

    state = {name: value for name, value in tensors().items() if kept(name)}
    assert fault in refusal_of(state)


def test_temporal_layers_of_an_impossible_size_are_refused():
    state = tensors()
    state["blocks1.0.t_fc.mlp_t.bias"] = torch.empty(17)
    assert refusal_of(state).startswith("its temporal layers of sizes [17, 16, 24, 32] fit no number of frames")


def test_a_report_is_clean_only_when_every_tensor_has_its_place():
    assert compare_keys(tensors(), tensors()).clean
    assert compare_keys(tensors(), tensors()).in_words == f"{len(tensors())} tensors fit"
    for changed in (
        replace(TINY, num_classes=6),
        replace(TINY, depths=(1, 1, 1, 1)),
        replace(TINY, depths=(2, 2, 1, 1)),
    ):
        assert not compare_keys(tensors(), tensors(changed)).clean


@pytest.mark.parametrize("name", VIDEO_PRESETS)
def test_only_the_right_preset_has_no_differences(name):
    preset = PRESETS[name]
    found = describe_tensors(tensors(preset.model, num_frames=preset.num_frames, crop_size=224))
    same = {
        other
        for other in VIDEO_PRESETS
        if not differences(found, describe_model(PRESETS[other].model, num_frames=PRESETS[other].num_frames))
    }
    assert same == {
        other
        for other in VIDEO_PRESETS
        if (other.split("_")[1], PRESETS[other].num_frames) == (name.split("_")[1], preset.num_frames)
    }


def test_chunk_lengths_are_compared_where_the_file_states_them():
    found = describe_tensors(tensors(), Preset(model=TINY, num_frames=4, crop_size=32))
    other = replace(TINY, chunk_lengths=(8, 8, 2, 1))
    assert differences(found, describe_model(other, num_frames=4)) == [
        "chunk lengths [4, 8, 2, 1] against [8, 8, 2, 1]"
    ]
    assert differences(describe_tensors(tensors()), describe_model(other, num_frames=4)) == []
