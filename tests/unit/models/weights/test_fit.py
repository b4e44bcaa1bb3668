"""Bringing weights into the form that a network takes: what is asked for is done, and nothing else."""

from dataclasses import replace

import pytest
import torch

from morphmlp.config import ModelConfig
from morphmlp.config.start import StartConfig
from morphmlp.errors import ConfigError
from morphmlp.models import MorphMLP
from morphmlp.models.weights.deduce import describe_tensors
from morphmlp.models.weights.describe import TEMPORAL_LAYER, describe_model
from morphmlp.models.weights.fit import class_rows, fit_weights, inflate

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
IMAGE = replace(TINY, temporal="none", num_classes=7)
FRAMES = 4
CONVOLUTIONS = (
    "patch_embed1.proj1",
    "patch_embed1.proj2",
    "patch_embed2.proj",
    "patch_embed3.proj",
    "patch_embed4.proj",
)


def network(model=TINY, *, seed=0, num_frames=FRAMES):
    """A network whose every tensor is drawn anew, so that none is like another's."""
    torch.manual_seed(seed)
    built = MorphMLP(model, num_frames=num_frames, crop_size=32).eval()
    for name, value in built.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.normal_(std=0.3)
    return built


def fitted(state, model=TINY, *, num_frames=FRAMES, head_rows=None, **changes):
    expected = MorphMLP(model, num_frames=num_frames, crop_size=32).state_dict()
    asked = describe_model(model, num_frames=num_frames)
    start, file = StartConfig(weights="w.pth", **changes), describe_tensors(state)
    return fit_weights(state, expected, file=file, asked=asked, start=start, head_rows=head_rows)


def faults_of(state, model=TINY, **changes):
    with pytest.raises(ConfigError) as caught:
        fitted(state, model, **changes)
    return list(caught.value.faults)


def differing(state, other):
    return {
        name for name in state.keys() | other.keys() if name not in other or not torch.equal(state[name], other[name])
    }


def test_weights_of_the_same_network_are_taken_as_they_are():
    state = network().state_dict()
    result = fitted(state)
    assert differing(state, result.state) == set()
    assert result.notes == (
        f"{len(state)} of {len(state)} tensors are the file's",
        "the head's rows are taken to be in the manifest's order",
        "chunk lengths aren't in the file: taken to be the experiment's [4, 8, 2, 1]",
        "the shapes fit 2 or 4 or 8 or 16 frames: taken to be the experiment's 4",
    )


@pytest.mark.parametrize(
    ("model", "difference", "tensors"),
    [
        (replace(TINY, depths=(1, 1, 1, 1)), "depths [1, 2, 1, 1] against [1, 1, 1, 1]", "unexpected (blocks2.1."),
        (replace(TINY, depths=(2, 2, 1, 1)), "depths [1, 2, 1, 1] against [2, 2, 1, 1]", "missing (blocks1.1."),
        (
            replace(TINY, embed_dims=(16, 32, 24, 32)),
            "widths [16, 16, 24, 32] against [16, 32, 24, 32]",
            "of another shape (patch_embed2.proj.weight [16, 16, 1, 3, 3] against [32, 16, 1, 3, 3]",
        ),
        (replace(TINY, mlp_ratio=3.0), "hidden channels [32, 32, 48, 64] against [48, 48, 72, 96]", "of another shape"),
        (replace(TINY, temporal="averaged"), "it has temporal layers", "unexpected (blocks1.0.t_norm1.weight"),
        (replace(TINY, temporal="none"), "its convolutions have a time axis", "of another shape (patch_embed1.proj1"),
        (
            replace(TINY, num_classes=6),
            "classes 5 against 6, start_from.replace_head: true starts with a fresh head",
            "2 of another shape (head.weight [5, 32] against [6, 32], head.bias [5] against [6])",
        ),
    ],
)
def test_another_network_is_refused_with_the_differences_and_the_tensors(model, difference, tensors):
    networks, keys = faults_of(network().state_dict(), model)
    assert networks.startswith("it is a MorphMLP of depths [1, 2, 1, 1], widths [16, 16, 24, 32] (video), 2 or 4 or 8")
    assert "; the experiment needs a MorphMLP of depths " in networks
    assert difference in networks
    assert tensors in keys


def test_other_frames_are_refused():
    (networks, _) = faults_of(network(num_frames=12).state_dict())
    assert networks.endswith(": frames 6 or 12 or 24 or 48 against 4")


def test_all_differences_are_told_at_once():
    (networks, _) = faults_of(network(IMAGE).state_dict(), replace(TINY, depths=(1, 1, 1, 1)))
    for what in ("depths", "start_from.inflate", "start_from.replace_head"):
        assert what in networks


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value):
    state = network().state_dict()
    state["blocks1.0.fc.proj.bias"][3] = value
    assert faults_of(state) == ["1 tensors hold numbers that aren't finite (blocks1.0.fc.proj.bias)"]


def test_half_precision_is_told():
    state = {name: value.half() if value.ndim == 5 else value for name, value in network().state_dict().items()}
    assert "5 tensors are stored as torch.float16 and converted" in fitted(state).notes


# Heads.


def test_a_head_of_other_classes_stays_fresh_when_asked_for():
    state = network(replace(TINY, num_classes=9)).state_dict()
    result = fitted(state, replace_head=True)
    assert differing(state, result.state) == {"head.weight", "head.bias"}
    assert "fresh: the head (9 classes in the file, 5 here)" in result.notes


def test_a_file_without_a_head_needs_a_fresh_one():
    state = {name: value for name, value in network().state_dict().items() if not name.startswith("head.")}
    assert "classes none against 5" in faults_of(state)[0]
    assert "fresh: the head (no classes in the file, 5 here)" in fitted(state, replace_head=True).notes


def test_a_head_of_as_many_classes_is_fresh_only_when_asked_for():
    state = network().state_dict()
    assert differing(state, fitted(state).state) == set()
    result = fitted(state, replace_head=True)
    assert differing(state, result.state) == {"head.weight", "head.bias"}
    assert "fresh: the head (start_from.replace_head; 5 classes in the file and here)" in result.notes


def test_logits_move_with_the_rows_of_the_head():
    one, other = network(), network(seed=1)
    rows = [3, 0, 4, 1, 2]
    other.load_state_dict(fitted(one.state_dict(), head_rows=rows).state)
    clips = torch.randn(2, 3, FRAMES, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(other(clips), one(clips)[:, rows])


def test_a_class_order_must_name_every_row_of_the_head():
    assert "start_from.class_order names 3 rows" in faults_of(network().state_dict(), head_rows=[0, 2, 1])[0]


# The order of classes.


def test_rows_are_found_by_name():
    assert class_rows(["b", "c", "a"], ["a", "b", "c"], where="order") == [2, 0, 1]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("passing American football (in game)", "passing_american_football_(in_game)"),
        ("massaging person's head", "massaging persons head"),
        ('"abseiling"', "abseiling"),
        ("Putting [something] onto [something]", "putting something onto something"),
        ("riding  a bike ", "riding a bike"),
    ],
)
def test_spelling_makes_no_difference_to_names(row, name):
    assert class_rows(["yoga", row], [name, "Yoga"], where="order") == [1, 0]


def test_names_on_one_side_only_are_all_named():
    with pytest.raises(ConfigError) as caught:
        class_rows(["a", "b", "x", "y"], ["a", "b", "p", "q"], where="FILE")
    assert caught.value.faults == (
        "FILE: lacks classes of the manifest: 'p', 'q'",
        "FILE: has classes that the manifest lacks: 'x', 'y'",
    )


def test_names_that_stand_twice_are_named():
    with pytest.raises(ConfigError) as caught:
        class_rows(["ice skating", "Ice_Skating", "a"], ["a", "ice skating", "A"], where="FILE")
    assert caught.value.faults == (
        "FILE: names classes twice: 'ice skating', 'Ice_Skating'",
        "FILE: can't be used, the manifest names classes twice: 'a', 'A'",
    )


# Colours.


@pytest.mark.parametrize("model", [TINY, replace(TINY, temporal="none")])
def test_reversed_weights_see_reversed_colours_as_the_others_see_them(model):
    one, other = network(model), network(model, seed=1)
    result = fitted(one.state_dict(), model, reverse_channels=True)
    assert "the first convolution's colours were reversed" in result.notes
    other.load_state_dict(result.state)
    clips = torch.randn(2, *one.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(other(clips.flip(1)), one(clips))
        assert not torch.allclose(other(clips), one(clips))


def test_reversing_leaves_the_file_as_it_is():
    state = network().state_dict()
    before = state["patch_embed1.proj1.weight"].clone()
    assert differing(state, fitted(state, reverse_channels=True).state) == {"patch_embed1.proj1.weight"}
    assert torch.equal(state["patch_embed1.proj1.weight"], before)


# From images to videos.


def started(model, state, **changes):
    """A fresh network of `model` with the weights put in."""
    torch.manual_seed(5)
    built = MorphMLP(model, num_frames=FRAMES, crop_size=32).eval()
    built.load_state_dict(fitted(state, model, **changes).state, strict=False)
    return built


@pytest.mark.parametrize("init", ["published", "random_projection"])
def test_a_still_clip_scores_as_its_image_did_with_kernels_at_the_centre(init):
    image = network(IMAGE)
    video = started(replace(TINY, init=init, num_classes=7), image.state_dict(), inflate="centre")
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        still = video(pictures.unsqueeze(2).expand(-1, -1, FRAMES, -1, -1))
        torch.testing.assert_close(still, image(pictures), atol=1e-5, rtol=1e-4)


def test_repeated_kernels_see_in_the_middle_of_a_still_clip_what_the_image_kernel_saw():
    image = network(IMAGE)
    video = started(replace(TINY, num_classes=7), image.state_dict(), inflate="repeat")
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        flat = image.patch_embed1.proj1(pictures)
        deep = video.patch_embed1.proj1(pictures.unsqueeze(2).expand(-1, -1, FRAMES, -1, -1))
    torch.testing.assert_close(deep[:, :, 1], flat)
    bias = image.patch_embed1.proj1.bias[:, None, None]
    torch.testing.assert_close(deep[:, :, 0] - bias, (flat - bias) * 2 / 3)  # a third of it lies before the clip


@pytest.mark.parametrize("how", ["repeat", "centre"])
def test_inflated_kernels_add_up_to_the_image_kernel(how):
    kernel = torch.randn(4, 3, 3, 3)
    state = {"a": kernel, "b": torch.randn(4)}
    expected = {"a": torch.empty(4, 3, 3, 3, 3), "b": torch.empty(4)}
    assert inflate(state, expected, how) == 1
    assert state["a"].shape == (4, 3, 3, 3, 3)
    torch.testing.assert_close(state["a"].sum(2), kernel)
    assert (state["a"][:, :, 0] == 0).all() == (how == "centre")


def test_temporal_layers_that_the_image_lacks_stay_fresh_and_are_listed():
    state = network(IMAGE).state_dict()
    model = replace(TINY, num_classes=7)
    result = fitted(state, model, inflate="repeat")
    expected = MorphMLP(model, num_frames=FRAMES, crop_size=32).state_dict()
    fresh = [name for name in expected if name not in result.state]
    assert fresh == [name for name in expected if TEMPORAL_LAYER.match(name)]
    assert len(fresh) == 6 * 5
    assert differing(state, result.state) == {f"{name}.weight" for name in CONVOLUTIONS}
    assert "5 convolutions got a time axis (repeat)" in result.notes
    (note,) = [note for note in result.notes if "temporal" in note]
    assert note.startswith("fresh: 30 tensors of the temporal layers (blocks1.0.t_norm1.weight, ")
    assert note.endswith(", and 27 more)")


def test_image_weights_are_not_inflated_unasked():
    networks, keys = faults_of(network(IMAGE).state_dict(), replace(TINY, num_classes=7))
    assert "its convolutions have no time axis, start_from.inflate (repeat or centre) gives them one" in networks
    assert "5 of another shape (patch_embed1.proj1.weight [8, 3, 3, 3] against [8, 3, 3, 3, 3]" in keys


@pytest.mark.parametrize(
    ("weights", "asked"),
    [(TINY, TINY), (IMAGE, IMAGE), (replace(TINY, temporal="averaged"), TINY)],
    ids=["video", "image", "5-D"],
)
def test_inflation_with_nothing_to_inflate_is_refused(weights, asked):
    assert (
        "start_from.inflate is repeat, but there are no 2-D weights for a video network"
        in (faults_of(network(weights).state_dict(), asked, inflate="repeat")[0])
    )


def test_image_trained_weights_with_a_time_axis_need_no_option():
    state = network(replace(TINY, temporal="averaged")).state_dict()
    result = fitted(state)
    assert differing(state, result.state) == set()
    assert any(note.startswith("fresh: 30 tensors of the temporal layers") for note in result.notes)


def test_the_ablation_takes_image_weights_too():
    model = replace(TINY, temporal="averaged", num_classes=7)
    result = fitted(network(IMAGE).state_dict(), model, inflate="centre")
    assert not any("fresh" in note for note in result.notes)
    assert result.state.keys() == MorphMLP(model, num_frames=FRAMES, crop_size=32).state_dict().keys()
