"""The moving average of the weights: what it holds, what it leaves alone, and that training doesn't notice it."""

import copy

import pytest
import torch
from torch import nn

from morphmlp.errors import CheckpointError
from morphmlp.training.loop.averaged_weights import AveragedWeights

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(32, 2))


def clips(seed):
    return torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(seed))


def step(model, optimizer, seed):
    optimizer.zero_grad()
    model(clips(seed)).square().sum().backward()
    optimizer.step()


def train(model, averaged, steps, moved=ONE):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for seed in range(steps):
        step(model, optimizer, seed)
        averaged.update(moved)


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_average_is_that_of_a_naive_computation():
    model = network()
    averaged = AveragedWeights(model, 0.9)
    expected = {name: parameter.detach().clone().double() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for seed in range(5):
        step(model, optimizer, seed)
        averaged.update(ONE)
        for name, parameter in model.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * parameter.detach().double()
    found = averaged.state_dict()
    assert found.keys() == expected.keys()
    for name, average in expected.items():
        assert torch.allclose(found[name].double(), average, atol=1e-6), name
    assert not torch.allclose(found["3.weight"], model.get_parameter("3.weight"), atol=1e-3)


def test_a_decay_of_zero_follows_the_weights():
    model = network()
    averaged = AveragedWeights(model, 0.0)
    train(model, averaged, 2)
    for name, average in averaged.state_dict().items():
        assert torch.allclose(average, model.get_parameter(name), atol=1e-7)


def test_a_skipped_step_leaves_the_average_as_it_was():
    model = network()
    averaged = AveragedWeights(model, 0.9)
    train(model, averaged, 2)
    before = {name: average.clone() for name, average in averaged.state_dict().items()}
    train(model, averaged, 1, moved=ZERO)
    assert equal(averaged.state_dict(), before)


def test_training_is_the_same_with_and_without_an_average():
    plain, watched = network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    for seed in range(3):
        step(plain, optimizer, seed)
    averaged = AveragedWeights(watched, 0.9)
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.01)
    for seed in range(3):
        step(watched, optimizer, seed)
        averaged.update(ONE)
        with averaged.in_place_of(watched.eval()):
            watched(clips(9))
        watched.train()
    assert equal(bits(watched), bits(plain))


def test_a_model_has_the_averages_for_a_while_and_its_own_weights_and_gradients_afterwards():
    model = network()
    averaged = AveragedWeights(model, 0.9)
    train(model, averaged, 3)
    before, gradient = bits(model), model[3].weight.grad.clone()
    averages = {name: average.clone() for name, average in averaged.state_dict().items()}
    with averaged.in_place_of(model):
        assert equal({name: parameter.detach() for name, parameter in model.named_parameters()}, averages)
        assert not torch.equal(model[3].weight, before["3.weight"])
    assert equal(bits(model), before)
    assert equal(averaged.state_dict(), averages)
    assert torch.equal(model[3].weight.grad, gradient)


def test_a_failure_meanwhile_also_gives_the_weights_back():
    model = network()
    averaged = AveragedWeights(model, 0.9)
    train(model, averaged, 1)
    before = bits(model)
    with pytest.raises(RuntimeError, match="truncated"), averaged.in_place_of(model):
        raise RuntimeError("truncated")
    assert equal(bits(model), before)


def test_running_statistics_stay_the_models_own():
    model = network()
    averaged = AveragedWeights(model, 0.9)
    train(model, averaged, 2)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert statistics["1.running_mean"].count_nonzero() == 4
    with averaged.in_place_of(model):
        assert equal(dict(model.named_buffers()), statistics)
    assert not [name for name in averaged.state_dict() if "running" in name]


def test_the_average_goes_on_after_a_restart_as_if_there_had_been_none():
    model = network()
    averaged = AveragedWeights(model, 0.9)
    train(model, averaged, 2)
    stored_model, stored = copy.deepcopy(model.state_dict()), copy.deepcopy(averaged.state_dict())
    train(model, averaged, 2)

    restarted = network()
    restarted.load_state_dict(stored_model)
    restarted_average = AveragedWeights(restarted, 0.9)
    restarted_average.load_state_dict(stored)
    train(restarted, restarted_average, 2)
    assert equal(restarted_average.state_dict(), averaged.state_dict())


def test_a_models_state_updated_with_the_averages_is_a_whole_one():
    model, other = network(), network()
    averaged = AveragedWeights(model, 0.9)
    train(model, averaged, 3)
    other.load_state_dict({**model.state_dict(), **averaged.state_dict()})
    with averaged.in_place_of(model.eval()):
        assert torch.equal(model(clips(9)), other.eval()(clips(9)))


def test_averages_of_another_model_are_refused_with_every_difference():
    averaged = AveragedWeights(network(), 0.9)
    others = averaged.state_dict()
    del others["0.bias"]
    others["extra"] = torch.zeros(1)
    others["3.weight"] = torch.zeros(5, 32)
    with pytest.raises(
        CheckpointError, match=r"has 3\.weight of shape \[5, 32\] instead of \[2, 32\].*extra.*lacks 0\.bias"
    ):
        averaged.load_state_dict(others)


def test_a_step_after_validation_moves_the_models_own_weights():
    # The optimiser and data parallelism hold the parameters themselves; the exchange must not part them.
    model = network()
    averaged = AveragedWeights(model, 0.9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    step(model, optimizer, 0)
    averaged.update(ONE)
    with averaged.in_place_of(model):
        pass
    before = bits(model)
    step(model, optimizer, 1)
    assert not torch.equal(model[3].weight, before["3.weight"])
