"""A run that continues from another one's checkpoint ends as that one would have, and survives a kill in between."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from morphmlp.config import load_config
from morphmlp.config.loading import changed_fields, config_to_yaml
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.errors import CheckpointError, RunInUseError
from morphmlp.experiment.data_splits import DataSplits
from morphmlp.experiment.run_claim import claim
from morphmlp.training.checkpoint import branching
from morphmlp.training.checkpoint.branching import branch, newest_at, recover_branch
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore
from morphmlp.training.loop.recipe import build_optimizer
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot
from morphmlp.training.record.run_events import read_events
from morphmlp.training.record.run_folder import RunFolder, run_lock

DATA = "12:abc"
NONE = manifest_from_rows(video_ids=[], paths=[], labels=[], splits=[], sizes_bytes=[], class_names=[])
STEPS_PER_EPOCH = 2


def config_of(*, ema_decay=None, **optim):
    config = replace(tiny.CONFIG, optim=replace(tiny.CONFIG.optim, **optim))
    return replace(config, train=replace(config.train, ema_decay=ema_decay))


def new_config(old):
    """Every schedule field has another value."""
    return replace(
        old,
        optim=replace(old.optim, lr=8e-4, min_lr=1e-5, weight_decay=0.3, clip_norm=0.5),
        mixing=replace(old.mixing, mixup=0.5, cutmix=0.3, label_smoothing=0.2),
    )


def save(store, state, config, *, score=50.0, data=DATA):
    step = state.cursor.epoch * STEPS_PER_EPOCH + state.cursor.step
    facts = CheckpointFacts(epoch=state.cursor.epoch, step=step, score=score)
    return store.save(snapshot(state, config=config, data_fingerprint=data), facts)


def trained(config, *, epochs):
    return tiny.train(tiny.recipe_of(config, max_steps=epochs * STEPS_PER_EPOCH), config=config)[0]


class Runs:
    """A donor after one epoch, and a member of other values that is ahead by an epoch."""

    def __init__(self, root, *, ema_decay=None):
        self.old = config_of(ema_decay=ema_decay, lr=5e-3)
        self.donors = config_of(ema_decay=ema_decay, lr=1e-3)
        self.new = new_config(self.donors)
        self.folder = RunFolder(root / "member")
        self.store, self.donor_store = (CheckpointStore.of(str(root), name) for name in ("member", "donor"))
        self.folder.root.mkdir(parents=True)
        self.folder.experiment.write_text(config_to_yaml(self.old))
        self.own = [save(self.store, trained(self.old, epochs=epochs), self.old) for epochs in (1, 2)]
        self.donor = save(self.donor_store, trained(self.donors, epochs=1), self.donors, score=62.5)

    def branch(self, config=None, donor=None):
        return branch(
            self.folder,
            self.store,
            donor=donor or self.donor,
            donor_store=self.donor_store,
            config=config or self.new,
        )

    def resumed(self):
        """The member as a command that continues it finds it."""
        config = load_config(self.folder.experiment)
        state = tiny.new_state(config, tiny.CPU)
        _, content = self.store.newest(pytest.fail)
        restore(state, checkpoint_from(content), config=config, data_fingerprint=DATA)
        return state, config

    def seen(self):
        """All that a refused branch must leave as it was."""
        return self.folder.experiment.read_text(), [stored.name for stored in self.store.stored()]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "runs"
    runs = Runs(root)
    (root / "new.yaml").write_text(config_to_yaml(runs.new))
    return runs, root


@pytest.fixture
def runs(template, tmp_path):
    """A copy of its own."""
    runs, root = template
    shutil.copytree(root, tmp_path / "runs")
    return at(runs, tmp_path / "runs")


def at(runs, root):
    copied = object.__new__(Runs)
    copied.__dict__ = {**runs.__dict__}
    copied.folder = RunFolder(root / "member")
    copied.store, copied.donor_store = (CheckpointStore.of(str(root), name) for name in ("member", "donor"))
    copied.donor = copied.donor_store.stored()[-1]
    return copied


def finish(state, config):
    return tiny.train(tiny.recipe_of(config), config=config, state=state)[0]


def differing(one, other):
    """Names of weights, averages and moments that aren't the same bit for bit."""
    ours, theirs = (
        {
            **state.model.state_dict(),
            **{
                f"averaged {name}": value
                for name, value in (state.averaged.state_dict() if state.averaged else {}).items()
            },
            **{
                f"{kind} {index}": value
                for index, moments in state.optimizer.state_dict()["state"].items()
                for kind, value in moments.items()
            },
        }
        for state in (one, other)
    )
    assert ours.keys() == theirs.keys()
    return [name for name, value in ours.items() if not torch.equal(value, theirs[name])]


@pytest.mark.parametrize("ema_decay", [None, 0.5], ids=["weights", "averaged weights"])
def test_a_member_goes_on_bit_for_bit_as_its_donor_would_under_the_new_values(ema_decay, tmp_path):
    runs = Runs(tmp_path / "runs", ema_decay=ema_decay)
    runs.branch()
    state, config = runs.resumed()
    assert changed_fields(config, runs.new) == []
    assert state.cursor.epoch == 1
    member = finish(state, config)

    donor = trained(runs.donors, epochs=1)
    fresh = build_optimizer(donor.model, runs.new.optim).param_groups
    for group, wanted in zip(donor.optimizer.param_groups, fresh, strict=True):
        group["weight_decay"] = wanted["weight_decay"]
    assert differing(member, finish(donor, runs.new)) == []
    assert differing(member, finish(trained(runs.donors, epochs=1), runs.donors)) != []  # so the new values do show


@pytest.fixture(scope="module")
def donor_continued(template):
    """The donor at its end, as it would have been without any branch."""
    donors = template[0].donors
    return finish(trained(donors, epochs=1), donors)


@pytest.mark.parametrize(
    "change",
    [{"lr": 8e-4}, {"weight_decay": 0.3}, {"clip_norm": 0.1}, {"min_lr": 1e-4}],
    ids=lambda change: next(iter(change)),
)
def test_each_new_value_changes_what_follows(change, runs, donor_continued):
    config = replace(runs.donors, optim=replace(runs.donors.optim, **change))
    runs.branch(config)
    assert differing(finish(*runs.resumed()), donor_continued) != []


def test_the_donors_checkpoint_is_the_only_one_left_though_the_member_was_ahead(runs):
    branched = runs.branch()
    assert runs.store.stored() == [branched]
    assert branched.facts == runs.donor.facts
    assert runs.donor_store.stored() == [runs.donor]


def test_a_branch_is_an_event_of_the_run(runs):
    runs.branch(replace(runs.donors, optim=replace(runs.donors.optim, lr=8e-4)))
    (event,) = read_events(runs.folder.events)
    assert event.text == f"continues from {runs.donor.location}, step 2, with optim.lr: 0.001 -> 0.0008"


def test_paths_and_operational_fields_stay_the_members_own(runs):
    elsewhere = replace(runs.new, name="other", data=replace(runs.new.data, train="elsewhere.parquet"))
    runs.branch(elsewhere)
    written = load_config(runs.folder.experiment)
    assert (written.name, written.data) == (runs.old.name, runs.old.data)
    assert written.optim == runs.new.optim


def test_a_branch_can_follow_a_branch(runs):
    runs.branch()
    again = replace(runs.new, optim=replace(runs.new.optim, lr=2e-4))
    runs.branch(again)
    assert runs.resumed()[1].optim.lr == 2e-4
    assert len(read_events(runs.folder.events)) == 2


def test_fields_that_weights_or_clips_depend_on_are_refused(runs):
    before = runs.seen()
    config = replace(runs.new, train=replace(runs.new.train, seed=7, epochs=9))
    with pytest.raises(CheckpointError, match=r"undo: train.epochs: 3 -> 9; train.seed: 0 -> 7$") as caught:
        runs.branch(config)
    assert "\n" not in str(caught.value)
    assert runs.seen() == before


def test_a_donor_of_another_experiment_is_refused(runs):
    before = runs.seen()
    other = replace(runs.donors, train=replace(runs.donors.train, seed=7))
    donor = save(runs.donor_store, tiny.new_state(other, tiny.CPU), other)
    with pytest.raises(CheckpointError, match=r"undo: train.seed: 7 -> 0$") as caught:
        runs.branch(donor=donor)
    assert str(caught.value).startswith(donor.location)
    assert runs.seen() == before


def test_a_donor_on_other_data_is_refused(runs):
    before = runs.seen()
    donor = save(runs.donor_store, tiny.new_state(runs.donors, tiny.CPU), runs.donors, data="13:def")
    with pytest.raises(CheckpointError, match="trained on 13:def in fp32, the run itself on 12:abc in fp32"):
        runs.branch(donor=donor)
    assert runs.seen() == before


def test_a_donor_that_is_gone_leaves_the_member_as_it_was(runs):
    before = runs.seen()
    shutil.rmtree(runs.donor.location)
    with pytest.raises(CheckpointError, match=runs.donor.name):
        runs.branch()
    assert runs.seen() == before
    assert runs.resumed()[0].cursor.epoch == 2


def test_a_storage_that_refuses_the_checkpoint_leaves_the_member_as_it_was(runs, monkeypatch):
    before = runs.seen()

    def full(*_):
        raise CheckpointError("full")

    monkeypatch.setattr(runs.store, "save", full)
    with pytest.raises(CheckpointError, match="full"):
        runs.branch()
    assert runs.seen() == before
    assert recover_branch(runs.folder, runs.store) is None


def test_a_run_that_a_command_works_on_is_not_branched(runs):
    with run_lock(runs.folder), pytest.raises(RunInUseError):
        runs.branch()


def test_a_member_without_a_checkpoint_takes_the_donors(runs):
    shutil.rmtree(runs.store.location)
    runs.branch()
    assert runs.resumed()[0].cursor.epoch == 1


def test_the_newest_checkpoint_of_so_many_epochs_is_found(runs):
    assert newest_at(runs.store, at=1, unit="epoch").name == runs.own[0].name
    assert newest_at(runs.store, at=5, unit="epoch").name == runs.own[1].name
    assert newest_at(runs.store, at=0, unit="epoch") is None


@pytest.fixture(scope="module")
def killed(template, tmp_path_factory):
    """The runs after a SIGKILL, one for each place where the branch touches a file."""
    runs, root = template
    out = tmp_path_factory.mktemp("killed")
    program = Path(__file__).parents[1] / "dying_branches.py"
    subprocess.run([sys.executable, program, root, out], check=True)
    places = [out / str(place) for place in range(len(list(out.iterdir())) - 1)]

    def copies(folder):
        for place in places:
            shutil.copytree(place, folder / place.name)
            yield at(runs, folder / place.name)

    return copies


def test_a_killed_branch_leaves_the_old_run_or_the_new_one(killed, tmp_path):
    outcomes = set()
    for runs in killed(tmp_path):
        recover_branch(runs.folder, runs.store)
        state, config = runs.resumed()
        is_new = not changed_fields(config, runs.new)
        outcomes.add(is_new)
        if is_new:
            assert state.cursor.epoch == 1
            assert [stored.facts for stored in runs.store.stored()] == [runs.donor.facts]
            assert len(read_events(runs.folder.events)) == 1
        else:
            assert changed_fields(config, runs.old) == []
            assert [stored.name for stored in runs.store.stored()] == [stored.name for stored in runs.own]
            assert read_events(runs.folder.events) == []
        assert not list(runs.folder.root.glob("branch*"))
    assert outcomes == {True, False}


def test_a_killed_branch_can_be_made_again(killed, tmp_path):
    for runs in killed(tmp_path):
        runs.branch()
        assert changed_fields(runs.resumed()[1], runs.new) == []
        assert [stored.facts for stored in runs.store.stored()] == [runs.donor.facts]


def test_a_command_that_takes_up_a_killed_branch_settles_it_first(runs, monkeypatch):
    monkeypatch.setattr(branching, "recover_branch", lambda folder, store: runs.donor)  # as if killed before
    runs.branch()
    monkeypatch.undo()
    assert load_config(runs.folder.experiment).optim == runs.old.optim
    with pytest.raises(CheckpointError, match=r"holds another experiment .*optim.lr: 0.0008 -> 0.005"):
        claim(runs.old, DataSplits(train=NONE, val=NONE, test=NONE), runs.folder, "sqlite://")
    assert runs.resumed()[1].optim == runs.new.optim


def test_the_donors_reports_stay_out_of_the_members_record(runs):
    content = snapshot(trained(runs.donors, epochs=1), config=runs.donors, data_fingerprint=DATA, unrecorded=["{}"])
    runs.branch(donor=runs.donor_store.save(content, CheckpointFacts(epoch=1, step=2, score=None)))
    _, content = runs.store.newest(pytest.fail)
    assert checkpoint_from(content).unrecorded == []
