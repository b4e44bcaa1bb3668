"""What an explanation says of a network, against other ways to compute it and networks whose answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coded_videos import Coding, write_video
from drawn_network import drawn, drawn_clips, drawn_network

from morphmlp.evaluation.video_model import VideoModel
from morphmlp.models.published_form import as_published
from morphmlp.prediction.explanation.clips import branch_names, explain_clips, named_blocks, time_shares
from morphmlp.prediction.explanation.explained import Subject, explain
from morphmlp.prediction.explanation.heat import heat_map
from morphmlp.prediction.sliding import sliding
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.task import network_input

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "grad_cam.json").read_text())


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_maps_are_those_of_the_package_grad_cam(kind, stage):
    network = drawn_network(kind)
    found = explain_clips(network, drawn_clips(network), stage=stage, label=GOLDEN["label"])
    expected = np.array(GOLDEN["maps"][f"{kind} {stage}"], np.float32)
    np.testing.assert_allclose(found.maps.flatten(1), expected, atol=2e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_maps_are_those_of_a_naive_loop_over_one_clip_after_another(stage):
    network = drawn_network()
    clips = drawn_clips(network, 3)
    found = explain_clips(drawn_network(), clips, stage=stage, label=1)
    for place, clip in enumerate(clips):
        kept = []
        hook = network.stage_blocks()[stage - 1][-1].register_forward_hook(lambda *given: kept.append(given[2]))  # noqa: B023
        logits = network(clip[None])
        hook.remove()
        (gradient,) = torch.autograd.grad(logits[0, 1], kept)
        values, slopes = kept[0][0].detach().numpy(), gradient[0].numpy()
        expected = np.zeros(values.shape[:3])
        for channel in range(values.shape[3]):
            expected += slopes[..., channel].mean() * values[..., channel]
        np.testing.assert_allclose(found.maps[place], np.maximum(expected, 0), atol=1e-5)
        np.testing.assert_allclose(found.logits[place], logits[0].detach(), atol=1e-5)


def test_of_the_last_stage_a_map_is_what_each_token_adds_to_the_logit():
    network = drawn_network(clip__crop_size=64, clip__short_edge=64)
    clips = drawn_clips(network)
    found = explain_clips(network, clips, stage=4, label=3)
    tokens = network.norm(network.forward_features(clips)[-1].movedim(1, -1))
    added = tokens @ network.head.weight[3] / tokens[0, ..., 0].numel()
    torch.testing.assert_close(added.sum(dim=(1, 2, 3)) + network.head.bias[3], found.logits[:, 3])
    torch.testing.assert_close(found.maps, added.relu())


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({}, {1: ("height", "width", "channel"), 4: ("frame", "channel")}),
        ({"model__branches": ["width", "channel"]}, {1: ("width", "channel"), 4: ("frame", "channel")}),
        ({"model__branches": ["height", "width"]}, {1: ("height", "width"), 4: None}),
        ({"model__branches": ["channel"]}, {1: None, 4: None}),
        ({"model__branch_sum": "plain"}, {1: None, 4: None}),
    ],
    ids=["all", "width, channel", "height, width", "one", "added"],
)
def test_branch_weights_are_those_of_the_published_form_and_add_to_one(overrides, names):
    network = drawn_network(**overrides)
    clips = drawn_clips(network)
    found = explain_clips(network, clips, stage=4, label=0).branch_weights
    published, scores = as_published(drawn_network(**overrides)), {}
    for name, block in named_blocks(published).items():
        if block.fc.reweight is not None:
            block.fc.reweight.register_forward_hook(lambda *given, name=name: scores.update({name: given[2]}))
    with torch.no_grad():
        published(clips)
    assert found.keys() == scores.keys()
    for name, shares in found.items():
        count = len(branch_names(named_blocks(network)[name].fc))
        exponents = np.exp(scores[name].numpy().reshape(len(clips), -1, count))
        np.testing.assert_allclose(shares.permute(1, 2, 0), exponents / exponents.sum(axis=2, keepdims=True), atol=1e-5)
        np.testing.assert_allclose(shares.sum(dim=0), 1, atol=1e-6)
    for stage, expected in names.items():
        weighed = f"{stage}.1" in found
        assert (branch_names(named_blocks(network)[f"{stage}.1"].fc) if weighed else None) == expected


def test_shares_of_moments_are_what_each_moment_gives_alone():
    layer = drawn_network().stage_blocks()[1][0].t_fc
    x = drawn("x", (2, layer.tokens, 3, 4, layer.proj.in_features))
    with torch.no_grad():
        lengths = torch.zeros(2, layer.tokens, layer.tokens)
        for moment in range(layer.tokens):
            alone = torch.zeros_like(x)
            alone[:, moment] = x[:, moment]
            lengths[:, :, moment] = (layer(alone) - layer(torch.zeros_like(x))).norm(dim=-1).mean(dim=(2, 3))
        found = time_shares(layer, x)
        torch.testing.assert_close(found, lengths / lengths.sum(dim=2, keepdim=True), atol=1e-5, rtol=1e-4)
        layer.mlp_t.weight.zero_()  # as published networks begin
        assert not time_shares(layer, x).any()


def test_networks_without_temporal_layers_have_no_shares_of_moments():
    for overrides in ({"kind": "image"}, {"model__temporal": "averaged"}):
        network = drawn_network(**overrides)
        assert explain_clips(network, drawn_clips(network), stage=1, label=0).time_shares == {}


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "grey": (110, 110, 110)}


@pytest.fixture(scope="module")
def corners(tmp_path_factory, place):
    """A network whose blocks add nothing, so that tokens see their surroundings alone, with a class for each colour.

    And a video: red is top left, green is bottom right, in the second half alone.
    """
    config = place.config()
    config = replace(
        config,
        clip=replace(config.clip, crop_size=128, short_edge=128),
        test=replace(config.test, num_clips=3, num_crops=3),
    )
    network = task_of(config).network().eval()
    pictures = np.full((32, 128, 192, 3), COLOURS["grey"], np.uint8)
    pictures[:, :40, :40] = COLOURS["red"]
    pictures[16:, 88:, 152:] = COLOURS["green"]
    path = tmp_path_factory.mktemp("corners") / "corners.mp4"
    write_video(path, Coding(file="", codec="libx264"), pictures=pictures)
    with torch.no_grad():
        for block in named_blocks(network).values():
            for layer in (block.fc.proj, block.mlp.fc2):
                layer.weight.zero_()
        tokens = []
        for colour in COLOURS.values():
            flat = torch.tensor(colour, dtype=torch.uint8).expand(1, 4, 128, 128, 3)
            last_map = network.forward_features(network_input(flat, network, torch.device("cpu")))[-1]
            tokens.append(network.norm(last_map.movedim(1, -1)).mean(dim=(0, 1, 2, 3)))
        # Of a token of its own colour a class has 1, of the others 0.
        network.head.weight[:3] = torch.linalg.pinv(torch.stack(tokens)).T
    return VideoModel(config, network.state_dict(), (*COLOURS, "none")), path


@pytest.mark.parametrize("over_time", [False, True], ids=["whole", "over time"])
@pytest.mark.parametrize(("label", "corner"), [(0, (False, False)), (1, (True, True))], ids=["red", "green"])
def test_a_map_peaks_where_and_when_the_evidence_is(corners, label, corner, over_time):
    model, path = corners
    reader = model.policy.opener("pyav").open(str(path), num_frames=None)
    windows = sliding(model.config.test_clip, window="4x2", hop="8", to_the_end=False) if over_time else None
    explanation = explain(model, reader, windows, Subject(label=label, name="", stage=4))
    heat, seen = heat_map(explanation, 28, size=(384, 256))  # of 192x128
    assert seen.all()
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (row >= 160 if corner[0] else row < 96, column >= 256 if corner[1] else column < 128) == (True, True)
    assert heat[96:160, 160:224].max() < 0.5 * heat.max()
    early = heat_map(explanation, 2, size=(384, 256))[0][row, column]
    assert early < 0.2 * heat.max() if label == 1 else early > 0.5 * heat.max()


def test_what_no_crop_sees_has_no_evidence(corners):
    model, path = corners
    one_crop = replace(model.config, test=replace(model.config.test, num_clips=1, num_crops=1))
    model = VideoModel(one_crop, model.network.state_dict(), model.names)
    reader = model.policy.opener("pyav").open(str(path), num_frames=None)
    explanation = explain(model, reader, None, Subject(label=2, name="", stage=3))
    _, seen = heat_map(explanation, 14, size=(192, 128))  # the centre clip is 12 to 19
    assert seen[:, 32:160].all()
    assert not seen[:, :32].any()
    assert not seen[:, 160:].any()
    assert not heat_map(explanation, 2, size=(192, 128))[1].any()
