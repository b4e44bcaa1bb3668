"""What an explanation of a segmented image says, against autograd by hand and a network whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_network import drawn

from morphmlp.prediction.explanation.clips import explain_scenes, named_blocks
from morphmlp.prediction.explanation.explained import Subject
from morphmlp.prediction.explanation.heat import heat_map
from morphmlp.prediction.explanation.scenes import explain_scene
from morphmlp.prediction.scenes import SceneModel
from morphmlp.prediction.trained import TrainedNetwork
from morphmlp.tasks.factory import task_of


@pytest.fixture(scope="module")
def network(place):
    network = task_of(place.config("scenes")).network().eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim > 1:
                value.copy_(drawn(name, value.shape, scale=0.3))
    return network


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_maps_are_those_of_a_naive_loop_over_channels(network, stage, everywhere):
    images = drawn("scenes", (2, 3, 32, 64))
    with torch.no_grad():
        label = int(network(images)[0].argmax(0).flatten().mode().values)
    found = explain_scenes(network, images, stage=stage, label=label, everywhere=everywhere)
    for place, image in enumerate(images):
        with torch.no_grad():
            maps = network.forward_features(image[None])
            normed = [
                norm(one.movedim(1, -1)).movedim(-1, 1).contiguous()
                for norm, one in zip(network.norms, maps, strict=True)
            ]
        normed[stage - 1].requires_grad_()
        (logits,) = network.decoder(normed)
        score = 0.0
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                if everywhere or int(logits[0, :, row, column].argmax()) == label:
                    score = score + logits[0, label, row, column]
        expected = np.zeros(maps[stage - 1].shape[2:])
        if torch.is_tensor(score):
            (slopes,) = torch.autograd.grad(score, normed[stage - 1])
            for channel in range(slopes.shape[1]):
                expected += float(slopes[0, channel].mean()) * normed[stage - 1][0, channel].detach().numpy()
        np.testing.assert_allclose(found.maps[place, 0], np.maximum(expected, 0), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.logits[place], logits[0].detach(), atol=1e-3, rtol=1e-3)
    assert found.maps.any()
    assert found.branch_weights.keys() == named_blocks(network).keys()
    assert found.time_shares == {}


@pytest.mark.parametrize("slide", [False, True], ids=["whole", "windows"])
def test_evidence_lies_where_the_class_is_seen(place, slide):
    """A network whose blocks add nothing: a bright square on black is one class by its brightness alone."""
    config = place.config("scenes")
    test = replace(config.segmentation.test, **({"mode": "slide", "stride": 32} if slide else {}))
    config = replace(
        config,
        clip=replace(config.clip, crop_size=64, short_edge=96),
        segmentation=replace(config.segmentation, test=test, long_edge=400),
    )
    network = task_of(config).network().eval()
    with torch.no_grad():
        for block in named_blocks(network).values():
            for layer in (block.fc.proj, block.mlp.fc2):
                layer.weight.zero_()
    model = SceneModel(
        TrainedNetwork(config=config, weights=network.state_dict(), class_names=tuple("abcd"), location="")
    )
    image = np.zeros((96, 128, 3), np.uint8)
    image[16:48, 80:112] = 255
    labels = np.zeros((96, 128), np.uint8)
    explanation = explain_scene(model, image, labels, Subject(label=1, name="b", stage=1))
    assert len(explanation.boxes) == (6 if slide else 1)
    assert explanation.boxes[-1][2:] == (96, 128)
    heat, seen = heat_map(explanation, 0, size=(128, 96))
    assert seen.all()
    square = heat[24:40, 88:104].mean()
    elsewhere = heat[60:90, 10:60].mean()
    assert abs(square - elsewhere) > 0.2  # whichever way the fresh decoder weighs it
