"""A sweep that goes on knows what its scheduler knew; no Ray is started."""

from types import SimpleNamespace

from morphmlp.config.sweep import Asha
from morphmlp.tuning.run.ray_sweep import _replay, _verdicts
from morphmlp.tuning.run.trial_log import TrialEnd, TrialLog, TrialView
from morphmlp.tuning.search.ray_asha_pruner import AshaPruner


def entry(tmp_path, number, *, ended=None):
    path = tmp_path / f"t{number}" / "trial.jsonl"
    TrialLog(path)
    view = TrialView(name=f"t{number}", path=path)
    view.end = ended
    return SimpleNamespace(job=SimpleNamespace(number=number), view=view)


def test_scores_are_replayed_in_the_order_of_time_and_a_trial_given_up_unheard_ends(tmp_path):
    finished = entry(tmp_path, 1, ended=TrialEnd(state="finished", result={}))
    unheard, running = entry(tmp_path, 2), entry(tmp_path, 3)
    finished.view.scores = [(1, 50.0, 10.0)]
    running.view.scores = [(1, 60.0, 20.0)]
    unheard.view.scores = [(1, 40.0, 30.0)]  # its driver was killed before it decided
    told = []
    queue = SimpleNamespace(entries=[finished, unheard, running], note_end=told.append)
    pruner = AshaPruner(Asha(kind="asha"), epochs=9)
    _replay(queue, pruner)
    assert set(pruner.stopped) == {2}
    assert (unheard.view.end.state, running.view.end) == ("stopped", None)
    assert told == [unheard]
    assert pruner.take(4, 1, 52.0) is not None  # behind the best third of 40, 50 and 60


def test_a_sweeps_verdicts_know_which_trials_are_seeds_of_one_point():
    queue = SimpleNamespace(entries=[], point_of=lambda number: "ab"[(number - 1) // 2])
    space = SimpleNamespace(points=[SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(epochs=9)))])
    sweep = SimpleNamespace(search=SimpleNamespace(kind="grid"), scheduler=Asha(kind="asha"))
    verdicts = _verdicts(sweep, space, None, queue)
    verdicts.take(1, 1, 50.0)
    assert verdicts.take(3, 1, 40.0) is not None
    assert verdicts.given_up(4) is not None
    assert verdicts.given_up(2) is None
