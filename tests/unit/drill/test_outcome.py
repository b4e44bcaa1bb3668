"""What a drill calls equal, and what it makes of a result."""

from dataclasses import replace

import pytest
import torch

from morphmlp.drill import STOP_NAMES, DrillError
from morphmlp.drill.outcome import (
    difference,
    doubled_points,
    greatest_loss_difference,
    missing_points,
    tensors_of,
)
from morphmlp.drill.trials import STOPS, DrillResult, StopResult, drill_table

CONTENT = {
    "format": "x",
    "model": {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([3])},
    "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
}


def weights(**changes):
    found = {name: value.clone() for name, value in tensors_of(CONTENT)}
    return found | {name.replace("__", "."): value for name, value in changes.items()}


def test_every_tensor_of_a_checkpoint_is_compared():
    assert sorted(weights()) == ["model.a", "model.b", "optimizer.state.0.step"]
    found = difference(weights(), weights(), "bit-identical")
    assert (found.equal, found.greatest) == (True, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"model__a": torch.tensor([1.0, -2.0000002])},
        {"model__b": torch.tensor([4])},
        {"optimizer__state__0__step": torch.tensor(5.0)},
        {"model__a": torch.tensor([float("nan"), -2.0])},
    ],
)
def test_one_other_bit_makes_weights_differ(change):
    assert not difference(weights(**change), weights(), "bit-identical").equal


def test_the_same_nan_is_the_same():
    nan = {"model__a": torch.tensor([float("nan"), 1.0])}
    assert difference(weights(**nan), weights(**nan), "bit-identical").equal


@pytest.mark.parametrize(("value", "equal"), [(-2.0001, True), (-2.0003, False)])
def test_rounding_is_told_from_more_than_that(value, equal):
    found = difference(weights(model__a=torch.tensor([1.0, value])), weights(), "within 1e-4")
    assert found.equal is equal
    assert found.greatest == pytest.approx(abs(value + 2) / 2, rel=1e-2)


def test_weights_that_are_not_numbers_are_never_within_rounding():
    assert not difference(weights(model__a=torch.tensor([float("nan"), 1.0])), weights(), "within 1e-4").equal


def test_another_network_is_refused_by_name():
    with pytest.raises(DrillError, match=r"different tensors: model\.a"):
        difference(weights(model__a=torch.zeros(3)), weights(), "bit-identical")


def test_losses_are_compared_where_both_have_them():
    one, other = {1: (2.0,), 2: (1.0, 1.0)}, {1: (2.0,), 2: (1.001,), 3: (7.0,)}
    assert greatest_loss_difference(one, other) == pytest.approx(0.001, rel=1e-2)
    assert greatest_loss_difference({}, other) == float("inf")
    assert doubled_points(one) == 1


@pytest.mark.parametrize(
    ("recorded", "missing"),
    [((1, 2, 3), 0), ((1, 3), 1), ((1, 2), 1), ((), 3), ((1, 2, 3, 4), 0)],
)
def test_a_step_without_a_point_is_a_hole_in_the_record(recorded, missing):
    undisturbed = dict.fromkeys((1, 2, 3), (1.0,))
    assert missing_points(dict.fromkeys(recorded, (2.0,)), undisturbed) == missing


GOOD = StopResult(
    stop="worker-killed",
    words="a worker is killed",
    at_step=9,
    repeated=0,
    lost=0,
    weights_equal=True,
    comparison="bit-identical",
    greatest_difference=0.0,
    greatest_loss_difference=0.0,
    seconds=12.3,
    redone_steps=4,
    doubled_points=0,
    missing_points=0,
)


def result_of(*stops):
    return DrillResult(stops=stops, steps=42, seed=0, undisturbed_s=30.0)


@pytest.mark.parametrize(
    "change",
    [
        {"repeated": 1},
        {"lost": 1},
        {"weights_equal": False},
        {"doubled_points": 1},
        {"missing_points": 1},
        {"fault": "the stop never happened"},
    ],
)
def test_one_bad_stop_fails_the_drill(change):
    assert result_of(GOOD).passed
    assert not result_of(GOOD, replace(GOOD, **change)).passed


def test_a_stop_without_a_result_fails_the_drill_and_is_told():
    failed = StopResult(stop="ctrl-c", words="Ctrl-C", at_step=7, fault="the run ended before")
    assert not result_of(GOOD, failed).passed
    lines = drill_table(result_of(GOOD, failed)).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "a worker is killed",
        "9",
        "0",
        "0",
        "yes",
        "12",
        "4",
    ]
    assert "failed" in lines[3]
    assert lines[-1] == "ctrl-c: the run ended before"


def test_points_that_the_record_doubles_or_lacks_are_reported():
    odd = replace(GOOD, stop="mlflow-down", doubled_points=2, missing_points=3)
    assert drill_table(result_of(GOOD, odd)).splitlines()[-2:] == [
        "mlflow-down: the record holds 2 points twice",
        "mlflow-down: the record lacks the points of 3 steps",
    ]


def test_every_stop_can_be_named():
    assert tuple(STOPS) == STOP_NAMES
