"""Running statistics: one move a step, towards the mean over micro-batches, whoever saw which."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from morphmlp.training.loop.batch_norm import RunningStatistics


def network(momentum=0.1):
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm3d(3, momentum=momentum), nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4, momentum=0.3))


def micro_batches(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 3, 2, 4, 4, generator=generator) * 3 + 1 for size in sizes]


def step(model, statistics, batches, workers=1):
    """One step whose micro-batches are shared by workers, one after the other on the same network."""
    sums, weight = 0, 0
    for worker in range(workers):
        statistics.begin_step()
        for batch in batches[worker::workers]:
            model(batch)
            statistics.add_micro_batch(len(batch))
            weight += len(batch)
        sums = sums + statistics.flat_sums()
        if worker < workers - 1:
            undo(model, statistics)
    statistics.end_step(sums, torch.tensor(float(weight)))


def undo(model, statistics):
    """Another worker begins from the same statistics: its own copy."""
    statistics.end_step(statistics.flat_sums(), torch.tensor(0.0))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.num_batches_tracked -= 1


def naive_statistics(batches, mean, variance, momentum):
    """The first norm's, by hand: the mean over micro-batches, weighted by clips, of what PyTorch would keep of each."""
    weight = sum(map(len, batches))
    axes = (0, 2, 3, 4)
    step_mean = sum(len(b) * b.mean(axes) for b in batches) / weight
    step_variance = sum(len(b) * b.var(axes, unbiased=True) for b in batches) / weight
    return (1 - momentum) * mean + momentum * step_mean, (1 - momentum) * variance + momentum * step_variance


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 3), st.sampled_from([0.1, 0.5]))
def test_running_statistics_are_those_of_a_naive_computation_for_any_split(sizes, workers, momentum):
    model = network(momentum)
    statistics = RunningStatistics(model)
    mean, variance = torch.zeros(3), torch.ones(3)
    for seed in range(3):
        batches = micro_batches(sizes, seed)
        step(model, statistics, batches, workers=min(workers, len(sizes)))
        mean, variance = naive_statistics(batches, mean, variance, momentum)
    assert torch.allclose(model[0].running_mean, mean, atol=1e-5)
    assert torch.allclose(model[0].running_var, variance, atol=1e-4)


def test_one_micro_batch_gives_what_pytorch_gives():
    ours, theirs = network(), network()
    statistics = RunningStatistics(ours)
    for seed in range(3):
        (batch,) = micro_batches([5], seed)
        step(ours, statistics, [batch])
        theirs(batch)
    for name, buffer in theirs.named_buffers():
        assert torch.allclose(ours.get_buffer(name), buffer, atol=1e-6), name


def test_the_order_of_micro_batches_plays_no_part():
    batches = micro_batches([2, 1, 3])
    kept = []
    for order in ([0, 1, 2], [2, 0, 1]):
        model = network()
        step(model, RunningStatistics(model), [batches[place] for place in order])
        kept.append([buffer.clone() for buffer in model.buffers()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*kept, strict=True))


def test_each_micro_batch_is_normalised_by_its_own_statistics():
    model, plain = network(), network()
    statistics = RunningStatistics(model)
    statistics.begin_step()
    for batch in micro_batches([2, 3]):
        assert torch.equal(model(batch), plain(batch))


def test_a_step_counts_as_one_whatever_the_number_of_micro_batches():
    model = network()
    statistics = RunningStatistics(model)
    for seed in range(2):
        step(model, statistics, micro_batches([1, 2, 3], seed))
    assert [model[place].num_batches_tracked.item() for place in (0, 2)] == [2, 2]


def test_the_momentum_is_what_it_was_after_a_step():
    model = network()
    step(model, RunningStatistics(model), micro_batches([2]))
    assert (model[0].momentum, model[2].momentum) == (0.1, 0.3)


def test_a_step_without_a_clip_leaves_the_statistics_as_they_were():
    model = network()
    statistics = RunningStatistics(model)
    step(model, statistics, micro_batches([2]))
    before = [buffer.clone() for buffer in (model[0].running_mean, model[0].running_var, model[2].running_mean)]
    statistics.begin_step()
    model(micro_batches([1])[0])  # an idle pass that isn't added
    statistics.end_step(statistics.flat_sums(), torch.tensor(0.0))
    after = [model[0].running_mean, model[0].running_var, model[2].running_mean]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_between_steps_changes_nothing(training):
    model = network()
    statistics = RunningStatistics(model)
    step(model, statistics, micro_batches([2, 2]))
    before = [buffer.clone() for buffer in model.buffers()]
    model.eval()
    model(micro_batches([3], 9)[0])
    model.train(training)
    assert all(torch.equal(one, other) for one, other in zip(before, model.buffers(), strict=True))
