"""The order of a sweep's trials, and how it is resumed after a stop."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig
from morphmlp.errors import CheckpointError
from morphmlp.tuning.run.trial_log import TrialLog
from morphmlp.tuning.run.trial_queue import TrialJob, TrialQueue
from morphmlp.tuning.run.trials import TrialEnd
from morphmlp.tuning.search.scheduler import PointSource
from morphmlp.tuning.space.space import ImpossiblePoint, Planner, expand

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
RATES = (0.1, 0.2, 0.3)


class Source:
    def __init__(self, points):
        self._points = iter(points)
        self.heard = []

    def next(self):
        return next(self._points, None)

    def tell(self, point, score):
        self.heard.append((point.values["optim.lr"], score))


@pytest.fixture
def queue(tmp_path):
    base = read_yaml(SMALL)
    storage = {"cluster.storage": str(tmp_path)}
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides=storage, space={"optim.lr": RATES}, seeds=(0, 1))
    planner = Planner(sweep, base)

    def make_job(number, point, seed):
        return TrialJob(
            number=number,
            config=replace(point.config, train=replace(point.config.train, seed=seed)),
            run_name=f"t{number}",
            parent_run_id="p",
            point=dict(point.values),
            uri="sqlite://",
            source={},
            working_folder=str(tmp_path),
        )

    def make(rates=RATES, make_point=planner.point):
        source = Source([planner.point({"optim.lr": rate}) for rate in rates])
        file = tmp_path / "trials.jsonl"
        return TrialQueue(source, seeds=sweep.seeds, file=file, make_point=make_point, make_job=make_job), source

    return make


def end(entry, state="finished", score=None):
    TrialLog(entry.view.path).ended(TrialEnd(state=state, score=score))
    entry.view.read_silently()


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


def test_a_point_is_judged_by_the_mean_of_its_seeds_once_all_have_ended(queue):
    one, source = queue()
    first, second = one.next(), one.next()
    end(first, score=50.0)
    one.note_end(first)
    assert source.heard == []
    end(second, score=70.0)
    one.note_end(second)
    assert source.heard == [(0.1, 60.0)]


def test_a_stopped_trial_counts_with_its_last_validation_and_a_failed_one_not_at_all(queue):
    one, source = queue()
    for state, score in (("stopped", 30.0), ("failed", None)):
        entry = one.next()
        if score is not None:
            TrialLog(entry.view.path).validation(1, score)
        end(entry, state)
        one.note_end(entry)
    assert source.heard == [(0.1, 30.0)]


def test_a_resumed_sweep_runs_only_what_has_not_ended_under_the_same_names(queue):
    one, _ = queue()
    first, second, third = one.next(), one.next(), one.next()
    end(first, score=50.0)
    end(third, "stopped")
    assert named(second) == (2, 0.1, 1)
    again, _ = queue()
    assert drained(again) == [(2, 0.1, 1), (4, 0.2, 1), (5, 0.3, 0), (6, 0.3, 1)]
    assert [entry.job.run_name for entry in again.entries] == [f"t{number}" for number in range(1, 7)]


def test_points_whose_trials_had_all_ended_are_judged_again(queue):
    one, _ = queue()
    for score in (50.0, 70.0):
        end(one.next(), score=score)
    _, source = queue()
    assert source.heard == [(0.1, 60.0)]


def test_seeds_that_a_kill_kept_out_of_the_file_are_added(queue, tmp_path):
    one, _ = queue()
    one.next()
    file = tmp_path / "trials.jsonl"
    file.write_text(file.read_text().splitlines(keepends=True)[0] + '{"number": 2, "val')
    again, _ = queue()
    assert drained(again)[:3] == [(1, 0.1, 0), (2, 0.1, 1), (3, 0.2, 0)]
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_failed_trials_run_again_only_where_the_user_says_so(queue):
    one, _ = queue()
    end(one.next(), "failed")
    end(one.next(), "diverged")
    again, _ = queue(rates=RATES[:1])
    assert drained(again) == []
    again.retry_failed()
    assert drained(again) == [(1, 0.1, 0)]


def test_a_trial_that_is_not_possible_any_more_is_refused(queue):
    one, _ = queue()
    one.next()
    impossible = ImpossiblePoint(values={}, title="t", reasons=("optim.lr: too great",))
    with pytest.raises(CheckpointError, match=r"trial 1 isn't possible any more: optim\.lr: too great"):
        queue(make_point=lambda values: impossible)


def test_a_point_that_failed_and_is_tried_again_is_judged_a_second_time(queue):
    one, _ = queue()
    for _ in range(2):
        end(one.next(), "failed")
    again, source = queue(rates=RATES[:1])
    assert source.heard == [(0.1, None)]
    again.retry_failed()
    while (entry := again.next()) is not None:
        end(entry, score=40.0)
        again.note_end(entry)
    assert source.heard == [(0.1, None), (0.1, 40.0)]


def test_each_end_is_reported_once_and_none_from_before_a_stop(queue):
    one, _ = queue()
    first, second = one.next(), one.next()
    end(first, score=50.0)
    assert one.newly_ended() == [first]
    assert one.newly_ended() == []
    again, _ = queue()
    assert again.newly_ended() == []
    again.end(again.entries[1], TrialEnd(state="failed", error="a reason"))
    assert [named(entry) for entry in again.newly_ended()] == [named(second)]


def test_listed_points_come_once_each_and_in_their_order_whatever_they_scored():
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides={}, space={"optim.lr": (0.3, 0.1, 0.2)})
    source = PointSource(expand(sweep, read_yaml(SMALL)).points)
    found = []
    while (point := source.next()) is not None:
        found.append(point.values["optim.lr"])
        source.tell(point, None)
    assert found == [0.3, 0.1, 0.2]
    assert source.next() is None


def test_a_trial_that_a_replay_ends_after_the_queue_was_read_is_not_run(queue):
    trials, _ = queue()
    for _ in range(3):
        trials.next()
    trials, _ = queue()
    trials.end(trials.entries[1], TrialEnd(state="stopped"))
    assert [entry.job.number for entry in (trials.next(), trials.next())] == [1, 3]
