"""Points proposed by Optuna: possible ones only, none twice, and remembered over a stop."""

import logging
import math
from pathlib import Path

import pytest

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import OptunaSearch, Range, SweepConfig
from morphmlp.tasks.scores import TOP1
from morphmlp.tuning.search.optuna_search import IMPOSSIBLE_IN_A_ROW, OptunaPoints
from morphmlp.tuning.space.space import Planner

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
CHUNKS = ([8, 8, 4, 1], [4, 4, 4, 1], [8, 8, 8, 1], [2, 2, 2, 1])
SPACE = {"model.chunk_lengths": CHUNKS, "optim.lr": Range(low=1e-4, high=1e-2, log=True)}


def points(journal, *, num_points=6, space=None, seed=0, score=TOP1):
    sweep = SweepConfig(
        name="s",
        experiment=str(SMALL),
        overrides={},
        space=space or SPACE,
        search=OptunaSearch(kind="optuna", num_points=num_points, seed=seed),
    )
    return OptunaPoints(sweep.search, sweep.space, score, Planner(sweep, read_yaml(SMALL)), journal)


def drained(source, score=lambda values: 50.0):
    found = []
    while (point := source.next()) is not None:
        found.append(point.values)
        source.tell(point, score(point.values))
    return found


def best_at_chunk_length_4(values):
    """Percent; the best rate is 2e-3."""
    score = {8: 40.0, 4: 60.0, 2: 50.0}[values["model.chunk_lengths"][0]]
    return score - 20 * abs(math.log10(values["optim.lr"] / 2e-3))


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
    found = drained(points(journal, num_points=40), best_at_chunk_length_4)
    late = [values["model.chunk_lengths"] == [4, 4, 4, 1] for values in found[20:]]
    assert sum(late) > len(late) / 2


def test_after_a_stop_points_without_a_score_come_first_and_others_do_not_come_again(journal):
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


def test_a_failed_point_is_not_proposed_again_not_even_after_a_stop(journal):
    source = points(journal, num_points=3, space={"model.chunk_lengths": CHUNKS})
    found = [source.next()]
    source.tell(found[0], None)
    again = points(journal, num_points=3, space={"model.chunk_lengths": CHUNKS})
    while (point := again.next()) is not None:
        found.append(point)
        again.tell(point, None)
    chunks = [tuple(point.values["model.chunk_lengths"]) for point in found]
    assert sorted(chunks) == [(2, 2, 2, 1), (4, 4, 4, 1), (8, 8, 4, 1)]


def test_a_point_that_failed_and_was_tried_again_has_the_later_result(journal):
    space = {"model.chunk_lengths": CHUNKS}
    source = points(journal, num_points=1, space=space)
    point = source.next()
    source.tell(point, None)
    source.tell(point, 61.5)
    source.tell(point, 99.0)
    again = points(journal, num_points=1, space=space)
    again.tell(point, 99.0)
    assert again.next() is None
    text = journal.read_text()
    assert text.count("61.5") == 1
    assert "99.0" not in text


def test_a_space_that_runs_dry_ends_the_search_with_a_line(journal):
    source = points(journal, num_points=50, space={"model.chunk_lengths": CHUNKS})
    assert len(drained(source)) == 3
    assert source.next() is None
    assert source.notes == [
        "search.num_points: is 50, but only 3 points were found; "
        f"{IMPOSSIBLE_IN_A_ROW} proposals in a row were impossible or known"
    ]


def test_a_space_without_a_possible_point_ends_the_search(journal):
    source = points(journal, space={"model.chunk_lengths": ([8, 8, 8, 1], [8, 8, 8, 2])})
    assert source.next() is None
    assert len(source.impossible) == 2
    assert len(source.notes) == 1


def test_the_last_points_of_a_small_space_are_found_though_the_estimator_prefers_known_ones(journal):
    rates = tuple(round(0.001 * number, 3) for number in range(1, 31))
    found = drained(points(journal, num_points=30, space={"optim.lr": rates}), lambda values: -values["optim.lr"])
    assert sorted(values["optim.lr"] for values in found) == list(rates)


def test_the_estimator_learns_what_is_impossible(journal):
    source = points(journal, num_points=40)
    drained(source, best_at_chunk_length_4)
    proposals = journal.read_text().count(',"study_id":0,"datetime_start"')
    assert 40 <= proposals < 80  # more than a thousand without


def test_ranges_with_an_end_give_the_numbers_of_a_grid(journal):
    ranges = {
        "optim.clip_norm": Range(low=0.1, high=1.0, step=0.4),
        "optim.warmup_epochs": Range(low=0, high=1),
        "augment.repeats": Range(low=1, high=4, log=True),
    }
    found = drained(points(journal, num_points=12, space=ranges))
    assert {values["optim.clip_norm"] for values in found} <= {0.1, 0.5, 0.9}
    assert len(found) == 12
    assert {values["augment.repeats"] for values in found} <= {1, 2, 3, 4}
    assert all(isinstance(values["augment.repeats"], int) for values in found)


def test_a_journal_is_continued_after_its_process_was_killed_in_the_middle_of_a_line(journal):
    source = points(journal)
    first = source.next()
    source.tell(first, 40.0)
    with journal.open("a") as file:
        file.write('{"op_code": 4, "worker')
    lock = journal.with_name("optuna.jsonl.lock")
    lock.symlink_to(journal)  # as Optuna's own lock, for which it would wait half a minute
    again = points(journal)
    assert not lock.is_symlink()
    assert first.values not in drained(again)
    assert len(drained(points(journal, num_points=7))) == 1


def test_a_proposal_that_a_kill_cut_short_is_given_up(journal):
    points(journal).next()
    lines = journal.read_text().splitlines(keepends=True)
    last_field = max(index for index, line in enumerate(lines) if '"param_name"' in line)
    journal.write_text("".join(lines[:last_field]))
    assert len(drained(points(journal))) == 6


def test_optuna_itself_is_silent(journal, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    drained(points(journal))
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_importances_name_the_field_that_matters_and_need_results(journal):
    assert points(journal).importances() is None

    def score(values):
        return {8: 10.0, 4: 90.0, 2: 50.0}[values["model.chunk_lengths"][0]]

    source = points(journal, num_points=30)
    drained(source, score)
    shares = source.importances()
    assert shares["model.chunk_lengths"] > shares["optim.lr"]
