"""Checkpoints: read back whole, or refused with the reason; never run."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from morphmlp.config import ExperimentConfig
from morphmlp.data.plan import Cursor
from morphmlp.errors import CheckpointError
from morphmlp.training.state import (
    CHECKPOINT_FILE,
    build_network,
    load_checkpoint,
    new_state,
    restore,
    save_checkpoint,
)

FINGERPRINT = "12:abc"


@pytest.fixture(scope="module")
def trained():
    """A state after two steps, with moments in the optimiser."""
    return tiny.train(tiny.recipe_of(max_steps=2))[0]


@pytest.fixture
def folder(trained, tmp_path):
    save_checkpoint(tmp_path, trained, config=tiny.CONFIG, data_fingerprint=FINGERPRINT)
    return tmp_path


def refusal_of(folder):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert str(caught.value).startswith(f"{folder / CHECKPOINT_FILE}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def restored_with(folder, config=tiny.CONFIG, data_fingerprint=FINGERPRINT):
    state = new_state(config, tiny.CPU)
    restore(state, load_checkpoint(folder), config=config, data_fingerprint=data_fingerprint)
    return state


def test_a_checkpoint_is_one_file(folder):
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_holds_the_experiment_the_data_and_the_cursor(folder):
    checkpoint = load_checkpoint(folder)
    assert isinstance(checkpoint.config, ExperimentConfig)
    assert checkpoint.config == tiny.CONFIG
    assert checkpoint.data_fingerprint == FINGERPRINT
    assert checkpoint.cursor == Cursor(epoch=1, step=0)


def test_a_restored_state_is_the_one_that_was_saved(folder, trained):
    again = restored_with(folder)
    assert again.cursor == trained.cursor
    for name, value in trained.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    ours, theirs = again.optimizer.state_dict(), trained.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for key, moments in theirs["state"].items():
        assert all(torch.equal(ours["state"][key][name], value) for name, value in moments.items())


def test_restoring_copies_and_does_not_share(folder):
    checkpoint = load_checkpoint(folder)
    state = new_state(tiny.CONFIG, tiny.CPU)
    restore(state, checkpoint, config=tiny.CONFIG, data_fingerprint=FINGERPRINT)
    with torch.no_grad():
        state.model.head.weight.zero_()
    assert checkpoint.model["head.weight"].abs().sum() > 0


def test_a_new_state_is_the_same_for_the_same_seed_whatever_was_drawn_before():
    def weights(seed):
        torch.rand(3)
        config = replace(tiny.CONFIG, train=replace(tiny.CONFIG.train, seed=seed))
        return new_state(config, tiny.CPU).model.state_dict()

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_the_network_of_a_checkpoint_scores_like_the_trained_one(folder, trained):
    checkpoint = load_checkpoint(folder)
    network = build_network(checkpoint.config).eval()
    network.load_state_dict(checkpoint.model)
    clips = torch.randn(2, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    trained.model.eval()
    with torch.no_grad():
        assert torch.equal(network(clips), trained.model(clips))


def test_a_missing_checkpoint_is_named(tmp_path):
    assert refusal_of(tmp_path).endswith("checkpoint.pt: no such checkpoint")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_file_is_refused(share, folder):
    path = folder / CHECKPOINT_FILE
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "can't be read, torn or not a checkpoint" in refusal_of(folder)


FOREIGN_BYTES = {
    "text": b"not a checkpoint\n",
    "words": b"hello world, this is a plain text file that is longer than a header\n" * 30,
    "zeros": bytes(1000),
    "parquet": b"PAR1" + bytes(100),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "digits": b"(1234567890",
    "json": b'{"model": 1}',
    "pickle of a text": pickle.dumps("checkpoint", protocol=2),
    "pickle of a dict": pickle.dumps({"format": "morphmlp-checkpoint-1"}, protocol=2),
    "empty zip": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("kind", FOREIGN_BYTES)
def test_a_foreign_file_is_refused(kind, tmp_path):
    (tmp_path / CHECKPOINT_FILE).write_bytes(FOREIGN_BYTES[kind])
    refusal_of(tmp_path)


@pytest.mark.parametrize(
    "content",
    [{"model_state": {}, "epoch": 3}, {"format": "other"}, [1, 2], torch.zeros(3), {"head.weight": torch.zeros(2)}],
    ids=["pyslowfast", "other format", "list", "tensor", "bare weights"],
)
def test_a_checkpoint_of_another_project_is_refused(content, tmp_path):
    torch.save(content, tmp_path / CHECKPOINT_FILE)
    assert "is not a checkpoint of this project" in refusal_of(tmp_path)


def test_a_checkpoint_without_all_its_parts_is_refused(tmp_path):
    torch.save({"format": "morphmlp-checkpoint-1", "config": {}, "model": {}}, tmp_path / CHECKPOINT_FILE)
    assert "it lacks data_fingerprint, epoch, step, optimizer" in refusal_of(tmp_path)


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / CHECKPOINT_FILE).mkdir()
    assert "can't be read" in refusal_of(tmp_path)


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("with_zip", [True, False])
def test_code_in_a_checkpoint_is_not_run(with_zip, tmp_path):
    trace = tmp_path / "trace"
    torch.save(
        {"format": "morphmlp-checkpoint-1", "model": Malicious(trace)},
        tmp_path / CHECKPOINT_FILE,
        _use_new_zipfile_serialization=with_zip,
    )
    refusal_of(tmp_path)
    assert not trace.exists()
    torch.load(tmp_path / CHECKPOINT_FILE, weights_only=False)
    assert trace.exists()  # the trap itself works


def test_a_changed_experiment_is_refused_and_every_change_named(folder):
    config = replace(tiny.CONFIG, optim=replace(tiny.CONFIG.optim, lr=0.5), train=replace(tiny.CONFIG.train, epochs=9))
    with pytest.raises(CheckpointError) as caught:
        restored_with(folder, config)
    assert "belongs to another experiment" in str(caught.value)
    assert "optim.lr: 0.001 -> 0.5; train.epochs: 3 -> 9" in str(caught.value)


def test_changed_data_are_refused(folder):
    with pytest.raises(CheckpointError, match="training manifest: 12:abc -> 13:def"):
        restored_with(folder, data_fingerprint="13:def")


def test_a_refused_checkpoint_leaves_the_state_as_it_was(folder):
    state = new_state(tiny.CONFIG, tiny.CPU)
    before = state.model.head.weight.clone()
    with pytest.raises(CheckpointError):
        restore(state, load_checkpoint(folder), config=tiny.CONFIG, data_fingerprint="other")
    assert torch.equal(state.model.head.weight, before)
    assert state.cursor == Cursor()


def test_operational_changes_do_not_keep_a_run_from_resuming(folder):
    config = replace(
        tiny.CONFIG,
        name="other",
        cluster=replace(tiny.CONFIG.cluster, num_workers=2),
        ingest=replace(tiny.CONFIG.ingest, videos_per_task=1),
        data=replace(tiny.CONFIG.data, train="elsewhere.parquet"),
    )
    assert restored_with(folder, config).cursor == Cursor(epoch=1, step=0)
