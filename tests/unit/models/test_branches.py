"""Spatial layers with some of their branches only."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from morphmlp.config import ModelConfig, load_config
from morphmlp.config.start import StartConfig
from morphmlp.errors import ConfigError
from morphmlp.models import MorphMLP
from morphmlp.models.cost import model_cost
from morphmlp.models.weights.deduce import describe_tensors
from morphmlp.models.weights.describe import describe_model
from morphmlp.models.weights.fit import fit_weights

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"
TINY = ModelConfig(
    depths=(1, 1, 1, 1),
    embed_dims=(8, 8, 8, 8),
    chunk_lengths=(4, 4, 2, 1),
    mlp_ratio=1.0,
    drop_path_rate=0.0,
    num_classes=3,
    temporal="averaged",
    init="published",
)
CLIPS = torch.arange(3 * 2 * 32 * 32, dtype=torch.float32).reshape(1, 3, 2, 32, 32).sin()


def network(*branches):
    torch.manual_seed(0)
    return MorphMLP(replace(TINY, branches=branches or None), num_frames=2, crop_size=32).eval()


def layers(model, stage):
    block = getattr(model, f"blocks{stage}")[0].fc
    return {name for name, child in block.named_children() if child is not None}


def test_all_three_named_are_the_published_network():
    published, named = network(), network("height", "width", "channel")
    assert published.state_dict().keys() == named.state_dict().keys()
    assert torch.equal(published(CLIPS), named(CLIPS))


@pytest.mark.parametrize(
    ("branches", "inner", "last"),
    [
        (("height", "width"), {"mlp_h", "mlp_w", "reweight", "proj"}, {"mlp_h", "proj"}),
        (("width", "channel"), {"mlp_w", "mlp_c", "reweight", "proj"}, {"mlp_h", "mlp_c", "reweight", "proj"}),
        (("height",), {"mlp_h", "proj"}, {"mlp_h", "proj"}),
        (("channel",), {"mlp_c", "proj"}, {"mlp_c", "proj"}),
    ],
)
def test_only_the_named_branches_have_layers_and_one_alone_is_not_weighted(branches, inner, last):
    model = network(*branches)
    assert [layers(model, stage) for stage in (1, 2, 3, 4)] == [inner, inner, inner, last]
    assert model(CLIPS).shape == (1, 3)


def test_without_height_and_width_tokens_of_a_frame_meet_in_convolutions_only():
    layer = network("channel").blocks1[0].fc
    x = torch.randn(1, 1, 8, 8, 8)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1
    touched = (layer(moved) != layer(x)).any(dim=-1).flatten()
    assert touched.nonzero().flatten().tolist() == [0]


def test_the_height_branch_alone_mixes_a_column():
    layer = network("height").blocks1[0].fc
    x = torch.randn(1, 1, 8, 8, 8)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1
    rows, columns = (layer(moved) != layer(x)).any(dim=-1)[0, 0].nonzero(as_tuple=True)
    assert set(columns.tolist()) == {0}
    assert rows.tolist() == [0, 1, 2, 3]  # one chunk of four


def test_every_parameter_learns():
    model = network("width").train()
    model(torch.randn(4, 3, 2, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_fewer_branches_cost_less():
    costs = [
        model_cost(replace(TINY, branches=branches), num_frames=2, crop_size=32).gmacs
        for branches in (None, ("height", "width"), ("height",))
    ]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == 3


@pytest.mark.parametrize(
    "branches", [("height",), ("channel",), ("height", "width"), ("width", "channel"), ("height", "width", "channel")]
)
def test_branches_are_told_from_a_files_tensors(branches):
    found = describe_tensors(network(*branches).state_dict())
    asked = describe_model(replace(TINY, branches=branches[::-1]), num_frames=2)
    assert found.branches == asked.branches == branches


def test_a_file_with_all_branches_does_not_fit_a_network_of_some():
    state, some = network().state_dict(), replace(TINY, branches=("height", "channel"))
    with pytest.raises(ConfigError) as caught:
        fit_weights(
            state,
            network("height", "channel").state_dict(),
            file=describe_tensors(state),
            asked=describe_model(some, num_frames=2),
            start=StartConfig(weights="w.pth"),
        )
    networks, tensors = caught.value.faults
    assert networks.endswith(": branches [height, width, channel] against [height, channel]")
    assert "6 unexpected (blocks1.0.fc.mlp_w.weight" in tensors


@pytest.mark.parametrize(
    ("branches", "line"),
    [
        ([], "model.branches is []; name one to three different ones, or null for all"),
        (
            ["height", "height"],
            "model.branches is ['height', 'height']; name one to three different ones, or null for all",
        ),
        (["depth"], "model.branches.0: input should be 'height', 'width' or 'channel', got 'depth'"),
    ],
)
def test_branches_that_make_no_network_are_refused_in_one_line(branches, line):
    with pytest.raises(ConfigError) as caught:
        load_config(SMALL, {"model.branches": branches})
    assert caught.value.faults == (line,)
