"""A scheduler's decisions reach the trials, and survive a kill."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_yaml
from morphmlp.config.sweep import Asha
from morphmlp.tasks.scores import TOP1
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers.stops import StopReason, requested_stop
from morphmlp.tuning.run import decisions
from morphmlp.tuning.run.trials import TrialEnd
from morphmlp.tuning.search.ray_asha_pruner import AshaPruner
from morphmlp.tuning.search.scheduler import Exploit, GiveUp

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
EXPLOIT = Exploit(donor=2, donor_at=3, donor_score=80.0, values={"optim.lr": 0.02})


class Decides:
    """Lets member 1 exploit another at its score of 10."""

    def on_score(self, number, epoch, score):
        return EXPLOIT if (number, score) == (1, 10.0) else None


class Queue:
    def __init__(self, entries):
        self.entries, self.ended = entries, []

    def end(self, entry, end):
        entry.view.end = end
        self.ended.append(entry)


def entry(tmp_path, number, scores, *, end=None):
    folder = RunFolder(tmp_path / f"t{number}")
    folder.root.mkdir()
    job = SimpleNamespace(number=number, run_name=f"t{number}", folder=folder, config=load_config(SMALL))
    return SimpleNamespace(job=job, view=SimpleNamespace(scores=scores, end=end))


@pytest.fixture
def members(tmp_path):
    return Queue([entry(tmp_path, 1, [(1, 10.0, 5.0)]), entry(tmp_path, 2, [(3, 80.0, 4.0)])])


def prepared(tmp_path):
    file = tmp_path / "t1" / "exploit.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_a_trial_that_is_given_up_is_asked_to_stop_with_the_reason(members):
    job = members.entries[0].job
    decisions.request(members, job, GiveUp(reason="behind"))
    stop = requested_stop(job.folder.stop_request)
    assert (stop.reason, stop.detail) == (StopReason.PRUNED, "behind")


def test_a_member_that_exploits_another_finds_from_whom_and_with_which_values(members, tmp_path):
    job = members.entries[0].job
    decisions.request(members, job, EXPLOIT)
    stop = requested_stop(job.folder.stop_request)
    assert (stop.reason, stop.detail) == (StopReason.EXPLOITS, "trial 2 has 80.0 at epoch 3")
    asked = prepared(tmp_path)
    assert (asked["donor_run"], asked["donor_at"], asked["values"]) == ("t2", 3, {"optim.lr": 0.02})


def test_an_exploit_that_a_kill_kept_from_being_carried_out_is_prepared_again(members, tmp_path):
    (tmp_path / "t1" / "experiment.yaml").write_text(config_to_yaml(members.entries[0].job.config))
    decisions.replay(members, Decides())
    assert prepared(tmp_path)["values"] == {"optim.lr": 0.02}


def test_one_that_was_carried_out_is_not(members, tmp_path):
    config = members.entries[0].job.config
    changed = replace(config, optim=replace(config.optim, lr=0.02))
    (tmp_path / "t1" / "experiment.yaml").write_text(config_to_yaml(changed))
    decisions.replay(members, Decides())
    assert prepared(tmp_path) is None


def test_a_member_that_has_ended_exploits_nobody(members, tmp_path):
    members.entries[0].view.end = TrialEnd(state="finished")
    decisions.replay(members, Decides())
    assert prepared(tmp_path) is None


def test_scores_are_replayed_in_the_order_of_time_and_a_trial_given_up_unheard_ends(tmp_path):
    finished = entry(tmp_path, 1, [(1, 50.0, 10.0)], end=TrialEnd(state="finished"))
    unheard = entry(tmp_path, 2, [(1, 40.0, 30.0)])  # its driver was killed before it decided
    running = entry(tmp_path, 3, [(1, 60.0, 20.0)])
    queue = Queue([finished, unheard, running])
    pruner = AshaPruner(Asha(kind="asha"), TOP1, whole=9)
    decisions.replay(queue, pruner)
    assert set(pruner.stopped) == {2}
    assert (unheard.view.end.state, running.view.end) == ("stopped", None)
    assert queue.ended == [unheard]
    assert pruner.on_score(4, 1, 52.0) is not None  # behind the best third of 40, 50 and 60
