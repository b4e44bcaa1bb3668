"""The paper's ablations of a block: width of groups, sum of branches, order and skip, and how weights carry them."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny_network import TINY, clips, gradients, tiny

from morphmlp.config import load_config
from morphmlp.config.shapes import Chunks
from morphmlp.config.start import StartConfig
from morphmlp.errors import ConfigError
from morphmlp.models import MorphMLP
from morphmlp.models.cost import model_cost
from morphmlp.models.morphfc import SpatialMorphFC
from morphmlp.models.planned_cost import planned_cost
from morphmlp.models.presets import Preset, preset
from morphmlp.models.weights.deduce import describe_tensors
from morphmlp.models.weights.describe import describe_model, expected_state
from morphmlp.models.weights.fit import fit_weights

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"
WIRINGS = [
    ("temporal_first", "published"),
    ("temporal_first", "standard"),
    ("spatial_first", "standard"),
    ("spatial_first", "published"),
    ("parallel", "standard"),
]
ABLATIONS = [
    {"group_width": 0.5},
    {"group_width": 2.0},
    {"branch_sum": "plain"},
    {"branch_sum": "plain", "group_width": 2.0, "branches": ("height", "width")},
    *({"block_order": order, "block_skip": skip} for order, skip in WIRINGS[1:]),
]


@pytest.mark.parametrize(("width", "millions"), [(0.5, 22.0), (1.0, 23.4), (2.0, 28.9)])
def test_the_image_network_t_has_the_parameters_that_the_paper_prints_for_each_width_of_groups(width, millions):
    chosen = preset("morphmlp_t_image")
    cost = planned_cost(replace(chosen.model, group_width=width), num_frames=1, crop_size=224)
    assert round(cost.params / 1e6, 1) == millions


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_costs_what_is_counted(ablation):
    model = replace(TINY, **ablation)
    planned, counted = (cost(model, num_frames=8, crop_size=64) for cost in (planned_cost, model_cost))
    assert planned.params == counted.params
    assert planned.gmacs == pytest.approx(counted.gmacs, rel=1e-12)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_parameter_of_an_ablation_gets_a_gradient(ablation):
    assert all(grad is not None for grad in gradients(tiny(**ablation, init="random_projection"), clips()).values())


@pytest.mark.parametrize(("groups", "rows"), [(8, 4), (2, 8)])
def test_a_group_of_channels_meets_the_tokens_of_a_chunk_in_one_layer(groups, rows):
    """Against a loop over frames, chunks and groups, `rows` tokens high, of 8 channels."""
    torch.manual_seed(0)
    layer = SpatialMorphFC(8, chunks=Chunks(length=4, stage=1), groups=groups, branches=("width",)).double()
    x = torch.randn(1, 2, rows, 4, 8, dtype=torch.float64)
    expected = torch.zeros_like(x)
    width = 8 // groups
    for t, row, g in product(range(2), range(rows), range(groups)):
        channels = slice(g * width, (g + 1) * width)
        mixed = layer.mlp_w(x[0, t, row, :, channels].reshape(-1))
        expected[0, t, row, :, channels] = mixed.reshape(4, width)
    torch.testing.assert_close(layer(x), layer.proj(expected))


def test_a_plain_sum_adds_the_branches():
    torch.manual_seed(0)
    layer = SpatialMorphFC(8, chunks=Chunks(length=4, stage=1), weighted=False)
    x = torch.randn(2, 1, 4, 4, 8)
    alone = []
    for name in ("mlp_h", "mlp_w", "mlp_c"):
        one = SpatialMorphFC(
            8, chunks=Chunks(length=4, stage=1), branches=({"h": "height", "w": "width", "c": "channel"}[name[-1]],)
        )
        one.load_state_dict({k: v for k, v in layer.state_dict().items() if k.startswith((name, "proj"))})
        alone.append(one(x) - layer.proj.bias)
    torch.testing.assert_close(layer(x), sum(alone) + layer.proj.bias)
    assert not any("reweight" in name for name in tiny(branch_sum="plain").state_dict())


@pytest.mark.parametrize(("order", "skip"), WIRINGS)
def test_blocks_are_wired_as_the_paper_draws_its_variants(order, skip):
    block = tiny(init="random_projection", block_order=order, block_skip=skip).blocks4[0].eval()
    torch.nn.init.normal_(block.t_fc.mlp_t.weight, std=0.5)
    x = torch.randn(2, 4, 2, 2, 32)

    def temporal(u):
        return block.t_fc(block.t_norm1(u))

    def spatial(u):
        return block.fc(block.norm1(u))

    drawn = {
        ("temporal_first", "published"): lambda: x + spatial(x + temporal(x)),
        ("temporal_first", "standard"): lambda: x + temporal(x) + spatial(x + temporal(x)),
        ("spatial_first", "standard"): lambda: x + spatial(x) + temporal(x + spatial(x)),
        ("spatial_first", "published"): lambda: x + temporal(x + spatial(x)),
        ("parallel", "standard"): lambda: x + temporal(x) + spatial(x),
    }
    y = drawn[order, skip]()
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))


def test_orders_and_skips_have_the_same_tensors_and_sweep_over_one_set_of_weights():
    names = {wiring: set(tiny(block_order=wiring[0], block_skip=wiring[1]).state_dict()) for wiring in WIRINGS}
    assert len(set(map(frozenset, names.values()))) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model.group_width": 3}, "model.group_width is 3; it must be 0.5, 1 or 2"),
        (
            {"model.block_order": "parallel"},
            "model.block_skip is published, which goes around the first of two layers; parallel needs standard",
        ),
        (
            {"model.temporal": "averaged", "model.block_skip": "standard"},
            "model.block_order is temporal_first and block_skip standard; with temporal: averaged there are no "
            "temporal layers to order, so leave them out",
        ),
        (
            {"model.group_width": 2, "model.chunk_lengths": [1, 16, 4, 1], "model.embed_dims": [32, 64, 128, 128]},
            "model.chunk_lengths: stage 1: chunk length 1 / model.group_width 2 = 0.5 channel groups must be a whole "
            "number that divides the stage's 32 channels (model.embed_dims)",
        ),
    ],
)
def test_ablations_that_make_no_network_are_refused_in_one_line(changes, line):
    with pytest.raises(ConfigError) as caught:
        load_config(SMALL, changes)
    assert caught.value.faults == (line,)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_a_file_that_states_an_ablation_fits_only_a_network_with_it(ablation):
    model, sizes = replace(TINY, **ablation), {"num_frames": 8, "crop_size": 64}
    state = MorphMLP(model, **sizes).state_dict()
    file = describe_tensors(state, Preset(model=model, **sizes))
    assert file == replace(describe_model(model, **sizes), possible_frames=file.possible_frames)
    start = StartConfig(weights="w.pth")
    fits = {
        "expected": expected_state(model, **sizes),
        "asked": describe_model(model, **sizes),
    }
    assert fit_weights(state, file=file, start=start, **fits).state.keys() == state.keys()
    other = {"expected": expected_state(TINY, **sizes), "asked": describe_model(TINY, num_frames=8)}
    with pytest.raises(ConfigError) as caught:
        fit_weights(state, file=file, start=start, **other)
    words = {
        "group_width": "width of groups",
        "branch_sum": "sum of branches",
        "block_skip": "order and skip of blocks",
    }
    for name in ablation.keys() & words.keys():
        assert f"{words[name]} [" in caught.value.faults[0]


def test_from_a_network_wired_otherwise_all_but_the_temporal_layers_carries_over():
    there, sizes = replace(TINY, block_order="spatial_first", block_skip="standard"), {"num_frames": 8, "crop_size": 64}
    state = MorphMLP(there, **sizes).state_dict()
    result = fit_weights(
        state,
        expected_state(TINY, **sizes),
        file=describe_model(there, num_frames=8),
        asked=describe_model(TINY, num_frames=8),
        start=StartConfig(weights="w.pth", carry="fitting"),
    )
    assert {name for name in state if name not in result.state} == {name for name in state if ".t_" in name}
    assert any(
        "(order and skip of blocks spatial_first, standard -> temporal_first, published)" in n for n in result.notes
    )


def test_a_bare_file_is_taken_to_be_wired_as_the_experiment_says_and_a_line_tells():
    model, sizes = replace(TINY, block_order="spatial_first"), {"num_frames": 8, "crop_size": 64}
    state = MorphMLP(model, **sizes).state_dict()
    result = fit_weights(
        state,
        expected_state(model, **sizes),
        file=describe_tensors(state),
        asked=describe_model(model, num_frames=8),
        start=StartConfig(weights="w.pth"),
    )
    assert "order and skip of blocks aren't in the file: taken to be spatial_first with skip published" in result.notes


@pytest.mark.parametrize(("order", "skip"), WIRINGS)
@pytest.mark.parametrize("init", ["published", "random_projection"])
def test_only_spatial_first_with_the_published_skip_starts_without_spatial_layers(order, skip, init):
    """What goes around them ends in temporal layers, whose output starts at 0: as if S weren't there (31.7 of 50.6)."""
    model = tiny(block_order=order, block_skip=skip, init=init)
    grads = gradients(model.double(), clips().double())
    reached = {name for name, grad in grads.items() if ".fc." in name and torch.count_nonzero(grad)}
    if (order, skip) == ("spatial_first", "published"):
        assert reached == set()
    else:
        assert {".".join(name.split(".")[3:]) for name in reached} >= {"mlp_h.weight", "mlp_w.weight", "mlp_c.weight"}
