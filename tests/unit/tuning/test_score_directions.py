"""Whatever ranks trials knows whether a task's primary score is better high or low."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import Asha, OptunaSearch, PopulationSearch, Range, SweepConfig
from morphmlp.tasks.scores import ScoreName
from morphmlp.tuning.run.trial_log import TrialLog
from morphmlp.tuning.run.trial_queue import TrialQueue
from morphmlp.tuning.run.trials import TrialEnd
from morphmlp.tuning.search.optuna_search import OptunaPoints
from morphmlp.tuning.search.population import Population
from morphmlp.tuning.search.ray_asha_pruner import AshaPruner
from morphmlp.tuning.space.space import Planner, expand

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"
SCORES = (10.0, 30.0, 40.0, 50.0)
RATES = Range(low=1e-4, high=1e-2, log=True)


def sweep_with(search):
    size = getattr(search, "size", 1)
    return SweepConfig(
        name="s",
        experiment=str(SMALL),
        overrides={},
        space={"optim.lr": RATES},
        search=search,
        max_concurrent_trials=size,
    )


def optuna_points(folder, score):
    sweep = sweep_with(OptunaSearch(kind="optuna", num_points=len(SCORES)))
    planner = Planner(sweep, read_yaml(SMALL))
    return OptunaPoints(sweep.search, sweep.space, score, planner, folder / "optuna.jsonl"), planner


def by_asha(folder, score):
    """Of the first and the last score, which come after the middle ones, the one that trains on."""
    pruner = AshaPruner(Asha(kind="asha", reduction_factor=2), score, whole=9)
    stopped = {value: pruner.on_score(int(value), 1, value) for value in (*SCORES[1:3], SCORES[0], SCORES[3])}
    assert (stopped[SCORES[0]] is None) != (stopped[SCORES[3]] is None)
    return SCORES[0] if stopped[SCORES[0]] is None else SCORES[3]


def by_population(folder, score):
    """The one that the worst exploits; whether a report comes last decides nothing."""
    sweep = sweep_with(PopulationSearch(kind="population", size=4))
    planner, points = Planner(sweep, read_yaml(SMALL)), expand(sweep, read_yaml(SMALL)).points
    donors = set()
    for worst_last in (SCORES, SCORES[::-1]):
        members = Population(sweep.search, sweep.space, points, score=score, whole=9, make_point=planner.point)
        exploits = [members.on_score(member, 1, value) for member, value in enumerate(worst_last, 1)]
        donors |= {exploit.donor_score for exploit in exploits if exploit is not None}
    (donor,) = donors
    return donor


def by_optuna(folder, score):
    source, _ = optuna_points(folder, score)
    for value in SCORES:
        source.tell(source.next(), value)
    return source._study.best_value


def by_the_queue(folder, score):
    """The best that its source hears of: a stopped trial counts with its last validation, a finished with its test."""
    source, planner = optuna_points(folder, score)

    def make_job(number, point, seed):
        return SimpleNamespace(number=number, log=folder / f"t{number}" / "trial.jsonl")

    queue = TrialQueue(source, seeds=(0,), file=folder / "trials.jsonl", make_point=planner.point, make_job=make_job)
    for value in SCORES:
        entry = queue.next()
        if value in (SCORES[0], SCORES[-1]):
            TrialLog(entry.view.path).validation(1, value)
            queue.end(entry, TrialEnd(state="stopped"))
        else:
            queue.end(entry, TrialEnd(state="finished", score=value))
    return source._study.best_value


@pytest.mark.parametrize("best", [by_asha, by_population, by_optuna, by_the_queue])
@pytest.mark.parametrize(("higher_is_better", "expected"), [(True, SCORES[-1]), (False, SCORES[0])])
def test_the_best_score_is_the_highest_or_the_lowest_as_the_task_says(best, higher_is_better, expected, tmp_path):
    score = ScoreName(key="toy", title="toy", higher_is_better=higher_is_better)
    assert best(tmp_path, score) == expected
