"""Points proposed by Optuna: possible ones only, none twice, and remembered over a stop."""

from pathlib import Path

import pytest

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import OptunaSearch, Range, SweepConfig
from morphmlp.tuning.optuna_search import OptunaPoints
from morphmlp.tuning.space import Planner

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"
CHUNKS = ([8, 8, 4, 1], [4, 4, 4, 1], [8, 8, 8, 1], [2, 2, 2, 1])
SPACE = {"model.chunk_lengths": CHUNKS, "optim.lr": Range(low=1e-4, high=1e-2, log=True)}


def points(journal, *, num_points=6, space=None, seed=0):
    sweep = SweepConfig(
        name="s",
        experiment=str(SMALL),
        overrides={},
        space=space or SPACE,
        search=OptunaSearch(kind="optuna", num_points=num_points, seed=seed),
    )
    return OptunaPoints(sweep, Planner(sweep, read_yaml(SMALL)), journal)


def drained(source, score=lambda values: 50.0):
    found = []
    while (point := source.next()) is not None:
        found.append(point.values)
        source.tell(point, score(point.values))
    return found


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "optuna.jsonl"


def test_so_many_points_are_proposed_all_of_them_possible_and_different(journal):
    source = points(journal)
    found = drained(source)
    assert len({str(values) for values in found}) == len(found) == 6
    assert [8, 8, 8, 1] not in [values["model.chunk_lengths"] for values in found]
    assert all(1e-4 <= values["optim.lr"] <= 1e-2 for values in found)
    assert all(point.values["model.chunk_lengths"] == [8, 8, 8, 1] for point in source.impossible)


def test_later_proposals_follow_the_results(journal):
    def score(values):
        return 90.0 if values["model.chunk_lengths"] == [4, 4, 4, 1] else 10.0

    found = drained(points(journal, num_points=40), score)
    late = [values["model.chunk_lengths"] == [4, 4, 4, 1] for values in found[20:]]
    assert sum(late) > len(late) / 2


def test_after_a_stop_untold_points_come_first_and_told_ones_do_not_come_again(journal):
    source = points(journal)
    first, second = source.next(), source.next()
    source.tell(first, 40.0)
    again = points(journal)
    assert again.next().values == second.values
    rest = drained(again)
    assert len(rest) == 4
    assert first.values not in rest
    assert second.values not in rest


def test_a_result_told_twice_counts_once(journal):
    source = points(journal)
    first = source.next()
    source.tell(first, 40.0)
    source.tell(first, 99.0)
    points(journal).tell(first, 99.0)
    text = journal.read_text()
    assert "40.0" in text
    assert "99.0" not in text


def test_a_failed_point_is_not_proposed_again(journal):
    source = points(journal, num_points=3, space={"model.chunk_lengths": CHUNKS})
    found = []
    while (point := source.next()) is not None:
        found.append(tuple(point.values["model.chunk_lengths"]))
        source.tell(point, None)
    assert sorted(found) == [(2, 2, 2, 1), (4, 4, 4, 1), (8, 8, 4, 1)]


def test_a_space_that_runs_dry_ends_the_search(journal):
    found = drained(points(journal, num_points=50, space={"model.chunk_lengths": CHUNKS}))
    assert len(found) == 3


def test_importances_name_the_field_that_matters_and_need_results(journal):
    assert points(journal).importances() is None

    def score(values):
        return {8: 10.0, 4: 90.0, 2: 50.0}[values["model.chunk_lengths"][0]]

    source = points(journal, num_points=30)
    drained(source, score)
    shares = source.importances()
    assert shares["model.chunk_lengths"] > shares["optim.lr"]
