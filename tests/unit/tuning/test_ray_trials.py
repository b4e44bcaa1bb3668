"""Which trial is handed to Ray Tune next; nothing of Ray is started."""

from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from morphmlp.tuning.ray_trials import _NextTrial
from morphmlp.tuning.trial_log import TrialLog, TrialView


@pytest.fixture
def campaign(tmp_path):
    """Three trials that have not started."""
    entries = []
    for number in (1, 2, 3):
        path = tmp_path / f"t{number}" / "trial.jsonl"
        TrialLog(path)
        job = SimpleNamespace(number=number)
        entries.append(SimpleNamespace(job=job, view=TrialView(name=f"t{number}", path=path)))
    waiting, told = iter(entries), []
    return SimpleNamespace(entries=entries, next=lambda: next(waiting, None), note_end=told.append, told=told)


def handed_out(campaign, given_up):
    trials = _NextTrial(campaign, SimpleNamespace(given_up=given_up.get))
    handed = []
    while (found := trials.suggest(str(len(handed)))) != Searcher.FINISHED:
        handed.append(found["job"].number)
    return handed


def test_a_trial_whose_point_was_given_up_does_not_start_and_ends_as_stopped(campaign):
    assert handed_out(campaign, {2: "another seed was behind"}) == [1, 3]
    ends = [entry.view.end for entry in campaign.entries]
    assert (ends[0], ends[2]) == (None, None)
    assert (ends[1].state, ends[1].reason, ends[1].wall_s, ends[1].cpu_s) == (
        "stopped",
        "another seed was behind",
        0,
        0,
    )
    assert campaign.told == [campaign.entries[1]]


def test_where_all_that_are_left_were_given_up_the_sweep_ends(campaign):
    assert handed_out(campaign, dict.fromkeys((1, 2, 3), "behind")) == []
    assert all(entry.view.end.state == "stopped" for entry in campaign.entries)
