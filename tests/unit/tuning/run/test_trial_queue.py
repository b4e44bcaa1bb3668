"""The order of a sweep's trials, and how it goes on after a stop."""

import json
from pathlib import Path

import pytest

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig
from morphmlp.errors import CheckpointError
from morphmlp.tuning.run.trial_log import TrialEnd, TrialLog
from morphmlp.tuning.run.trial_queue import TrialJob, TrialQueue, seeded
from morphmlp.tuning.space.space import ImpossiblePoint, Planner

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
RATES = (0.1, 0.2, 0.3)


class Source:
    def __init__(self, points):
        self._points = iter(points)
        self.told = []

    def next(self):
        return next(self._points, None)

    def tell(self, point, top1):
        self.told.append((point.values["optim.lr"], top1))


@pytest.fixture
def queue(tmp_path):
    base = read_yaml(SMALL)
    storage = {"cluster.storage": str(tmp_path)}
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides=storage, space={"optim.lr": RATES}, seeds=(0, 1))
    planner = Planner(sweep, base)

    def make_job(number, point, seed):
        return TrialJob(
            number=number,
            config=seeded(point.config, seed),
            run_name=f"t{number}",
            parent_run_id="p",
            point=dict(point.values),
            uri="sqlite://",
            working_folder=str(tmp_path),
        )

    def make(rates=RATES, make_point=planner.point):
        source = Source([planner.point({"optim.lr": rate}) for rate in rates])
        file = tmp_path / "trials.jsonl"
        return TrialQueue(sweep, source, file=file, make_point=make_point, make_job=make_job), source

    return make


def end(entry, state="finished", top1=None):
    result = None if top1 is None else {"score": top1}
    TrialLog(entry.view.path).ended(TrialEnd(state=state, result=result))
    entry.view.take_in_quietly()


def named(entry):
    return entry.job.number, entry.point.values["optim.lr"], entry.seed


def drained(queue):
    found = []
    while (entry := queue.next()) is not None:
        found.append(named(entry))
    return found


def test_every_point_runs_with_every_seed(queue):
    one, _ = queue()
    assert drained(one) == [(1, 0.1, 0), (2, 0.1, 1), (3, 0.2, 0), (4, 0.2, 1), (5, 0.3, 0), (6, 0.3, 1)]
    assert [entry.job.config.train.seed for entry in one.entries] == [0, 1, 0, 1, 0, 1]


def test_a_point_is_told_with_the_mean_of_its_seeds_once_all_have_ended(queue):
    one, source = queue()
    first, second = one.next(), one.next()
    end(first, top1=50.0)
    one.note_end(first)
    assert source.told == []
    end(second, top1=70.0)
    one.note_end(second)
    assert source.told == [(0.1, 60.0)]


def test_a_stopped_trial_counts_with_its_last_validation_and_a_failed_one_not_at_all(queue):
    one, source = queue()
    for state, top1 in (("stopped", 30.0), ("failed", None)):
        entry = one.next()
        if top1 is not None:
            TrialLog(entry.view.path).epoch(1, top1)
        end(entry, state)
        one.note_end(entry)
    assert source.told == [(0.1, 30.0)]


def test_a_sweep_that_goes_on_runs_only_what_has_not_ended_under_the_same_names(queue):
    one, _ = queue()
    first, second, third = one.next(), one.next(), one.next()
    end(first, top1=50.0)
    end(third, "stopped")
    assert named(second) == (2, 0.1, 1)
    again, _ = queue()
    assert drained(again) == [(2, 0.1, 1), (4, 0.2, 1), (5, 0.3, 0), (6, 0.3, 1)]
    assert [entry.job.run_name for entry in again.entries] == [f"t{number}" for number in range(1, 7)]


def test_points_whose_trials_had_all_ended_are_told_again(queue):
    one, _ = queue()
    for top1 in (50.0, 70.0):
        end(one.next(), top1=top1)
    _, source = queue()
    assert source.told == [(0.1, 60.0)]


def test_seeds_that_a_kill_kept_out_of_the_file_are_added(queue, tmp_path):
    one, _ = queue()
    one.next()
    file = tmp_path / "trials.jsonl"
    file.write_text(file.read_text().splitlines(keepends=True)[0] + '{"number": 2, "val')
    again, _ = queue()
    assert drained(again)[:3] == [(1, 0.1, 0), (2, 0.1, 1), (3, 0.2, 0)]
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_failed_trials_run_again_only_where_that_is_asked_for(queue):
    one, _ = queue()
    end(one.next(), "failed")
    end(one.next(), "diverged")
    again, _ = queue(rates=RATES[:1])
    assert drained(again) == []
    again.retry_failed()
    assert drained(again) == [(1, 0.1, 0)]


def test_a_trial_that_is_not_possible_any_more_is_told(queue):
    one, _ = queue()
    one.next()
    impossible = ImpossiblePoint(values={}, title="t", reasons=("optim.lr: too great",))
    with pytest.raises(CheckpointError, match=r"trial 1 isn't possible any more: optim\.lr: too great"):
        queue(make_point=lambda values: impossible)


def test_a_point_that_failed_and_is_tried_again_is_told_a_second_time(queue):
    one, _ = queue()
    for _ in range(2):
        end(one.next(), "failed")
    again, source = queue(rates=RATES[:1])
    assert source.told == [(0.1, None)]
    again.retry_failed()
    while (entry := again.next()) is not None:
        end(entry, top1=40.0)
        again.note_end(entry)
    assert source.told == [(0.1, None), (0.1, 40.0)]
