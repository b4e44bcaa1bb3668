"""What a checkpoint holds, and that it continues only the experiment it belongs to."""

from dataclasses import replace

import pytest
import tiny_training as tiny
import torch

from morphmlp.config import ExperimentConfig
from morphmlp.data.stream.plan import Cursor
from morphmlp.errors import CheckpointError
from morphmlp.tasks.factory import task_of
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot

FINGERPRINT = "12:abc"


@pytest.fixture(scope="module")
def trained():
    """A state after two steps, with moments in the optimiser."""
    return tiny.train(tiny.recipe_of(max_steps=2))[0]


@pytest.fixture
def content(trained):
    return snapshot(trained, config=tiny.CONFIG, data_fingerprint=FINGERPRINT)


def restored_with(content, config=tiny.CONFIG, data_fingerprint=FINGERPRINT):
    state = tiny.new_state(config, tiny.CPU)
    restore(state, checkpoint_from(content), config=config, data_fingerprint=data_fingerprint)
    return state


def test_a_checkpoint_holds_the_experiment_the_data_and_the_cursor(content):
    checkpoint = checkpoint_from(content)
    assert isinstance(checkpoint.config, ExperimentConfig)
    assert checkpoint.config == tiny.CONFIG
    assert checkpoint.data_fingerprint == FINGERPRINT
    assert checkpoint.cursor == Cursor(epoch=1, step=0)


def test_a_restored_state_is_the_one_that_was_saved(content, trained):
    again = restored_with(content)
    assert again.cursor == trained.cursor
    for name, value in trained.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    ours, theirs = again.optimizer.state_dict(), trained.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for key, moments in theirs["state"].items():
        assert all(torch.equal(ours["state"][key][name], value) for name, value in moments.items())


def test_restoring_copies_and_does_not_share(content):
    checkpoint = checkpoint_from(content)
    state = tiny.new_state(tiny.CONFIG, tiny.CPU)
    restore(state, checkpoint, config=tiny.CONFIG, data_fingerprint=FINGERPRINT)
    with torch.no_grad():
        state.model.head.weight.zero_()
    assert checkpoint.model["head.weight"].abs().sum() > 0


def test_a_new_state_is_the_same_for_the_same_seed_whatever_was_drawn_before():
    def weights(seed):
        torch.rand(3)
        config = replace(tiny.CONFIG, train=replace(tiny.CONFIG.train, seed=seed))
        return tiny.new_state(config, tiny.CPU).model.state_dict()

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_the_network_of_a_checkpoint_scores_like_the_trained_one(content, trained):
    checkpoint = checkpoint_from(content)
    network = task_of(checkpoint.config).network().eval()
    network.load_state_dict(checkpoint.model)
    clips = torch.randn(2, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    trained.model.eval()
    with torch.no_grad():
        assert torch.equal(network(clips), trained.model(clips))


@pytest.mark.parametrize(
    "content", [{"model_state": {}, "epoch": 3}, {"format": "other"}, {}], ids=["pyslowfast", "other format", "empty"]
)
def test_a_checkpoint_of_another_project_is_refused(content):
    with pytest.raises(CheckpointError, match="is not a checkpoint of this project"):
        checkpoint_from(content)


def test_a_checkpoint_without_all_its_parts_is_refused(content):
    del content["optimizer"], content["precision"]
    with pytest.raises(CheckpointError, match="it lacks precision, optimizer"):
        checkpoint_from(content)


def test_a_snapshot_does_not_change_with_the_training(trained):
    state, _ = tiny.train(tiny.recipe_of(max_steps=1))
    content = snapshot(state, config=tiny.CONFIG, data_fingerprint=FINGERPRINT)
    weights = {name: value.clone() for name, value in content["model"].items()}
    moments = content["optimizer"]["state"][0]["exp_avg"].clone()
    tiny.train(tiny.recipe_of(max_steps=2), state=state)
    assert all(torch.equal(content["model"][name], value) for name, value in weights.items())
    assert torch.equal(content["optimizer"]["state"][0]["exp_avg"], moments)
    assert not torch.equal(state.model.head.weight, weights["head.weight"])


def test_a_changed_experiment_is_refused_and_every_change_named(content):
    config = replace(tiny.CONFIG, optim=replace(tiny.CONFIG.optim, lr=0.5), train=replace(tiny.CONFIG.train, epochs=9))
    with pytest.raises(CheckpointError) as caught:
        restored_with(content, config)
    assert "belongs to another experiment" in str(caught.value)
    assert "optim.lr: 0.001 -> 0.5; train.epochs: 3 -> 9" in str(caught.value)


def test_changed_data_are_refused(content):
    with pytest.raises(CheckpointError, match="training manifest: 12:abc -> 13:def"):
        restored_with(content, data_fingerprint="13:def")


def test_a_refused_checkpoint_leaves_the_state_as_it_was(content):
    state = tiny.new_state(tiny.CONFIG, tiny.CPU)
    before = state.model.head.weight.clone()
    with pytest.raises(CheckpointError):
        restore(state, checkpoint_from(content), config=tiny.CONFIG, data_fingerprint="other")
    assert torch.equal(state.model.head.weight, before)
    assert state.cursor == Cursor()


def test_operational_changes_do_not_keep_a_run_from_resuming(content):
    config = replace(
        tiny.CONFIG,
        name="other",
        cluster=replace(tiny.CONFIG.cluster, num_workers=2),
        ingest=replace(tiny.CONFIG.ingest, videos_per_task=1),
        data=replace(tiny.CONFIG.data, train="elsewhere.parquet"),
    )
    assert restored_with(content, config).cursor == Cursor(epoch=1, step=0)
