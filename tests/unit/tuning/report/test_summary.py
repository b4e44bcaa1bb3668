"""The answer in words and the terminal's table."""

from dataclasses import replace

from synthetic_sweeps import result_of, trial

from morphmlp.tasks import scores
from morphmlp.tuning.report.ranking import ranked
from morphmlp.tuning.report.summary import answer, length_text, number, trial_table


def rows_of(table):
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.replace("\\|", "!").strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def table_of(trials):
    return trial_table(result_of(trials))


def test_the_table_has_one_row_per_point_with_mean_and_interval_over_its_seeds():
    trials = [
        trial(1, {"optim.lr": 0.1}, seed=0, score=50.0),
        trial(2, {"optim.lr": 0.1}, seed=1, score=52.0),
        trial(3, {"optim.lr": 0.2}, seed=0, score=90.0),
        trial(4, {"optim.lr": 0.2}, seed=1, score=90.0),
    ]
    first, second = rows_of(table_of(trials))
    assert (first["rank"], first["lr"], first["seeds"], first["states"]) == ("1", "0.2", "2/2", "finished 2")
    assert second["top-1 (95 %)"].startswith("51.0 (")
    assert (second["GMAC"], second["params (M)"], second["minutes"]) == ("0.0123", "1.23", "1")


def test_states_stand_in_the_row_and_reasons_beneath():
    trials = [
        trial(1, {"optim.lr": 0.1}, seed=0),
        trial(2, {"optim.lr": 0.1}, seed=1, state="stopped", epochs=2),
        trial(3, {"optim.lr": 9.9}, seed=0, state="failed", error="training failed: a | b"),
        trial(4, {"optim.lr": 9.9}, seed=1, state="diverged", error="no number"),
    ]
    table = table_of(trials)
    first, second = rows_of(table)
    assert first["states"] == "finished 1, stopped 1 (after 2 epochs)"
    assert (second["states"], second["top-1 (95 %)"]) == ("diverged 1, failed 1", "")
    assert table.endswith(
        "\n\n- diverged, 1 trial: no number (9.9 seed 1)\n- failed, 1 trial: training failed: a | b (9.9 seed 0)\n"
    )


def test_points_that_cant_be_distinguished_from_the_best_are_marked_and_the_mark_is_explained():
    tops = (70.0, 69.5, 20.0)
    close = table_of([trial(n, {"a": n}, score=top1) for n, top1 in enumerate(tops)])
    assert [row["rank"] for row in rows_of(close)] == ["1", "2 =", "3"]
    assert "\n\n= can't be distinguished from the best\n" in close
    assert "=" not in table_of([trial(n, {"a": n}, score=top1) for n, top1 in enumerate((70.0, 20.0))])


def test_one_epoch_is_not_called_epochs():
    assert "stopped (after 1 epoch)" in table_of([trial(1, state="stopped", epochs=1)])


def test_a_trial_of_so_many_steps_says_after_how_many_it_was_stopped():
    stopped = [trial(n, state="stopped", epochs=n, steps=4000 * n) for n in (1, 2)]
    assert "stopped 2 (after 4000/8000 steps)" in table_of(stopped)
    assert length_text(stopped[1]) == "after 8000 steps"
    assert length_text(replace(stopped[0], steps=0, epochs=0)) == "before its first validation"


def test_a_seed_that_was_never_started_is_distinguished_from_those_that_trained():
    behind = trial(1, seed=0, state="stopped", epochs=1)
    idle = [replace(trial(1 + seed, seed=seed, state="stopped", epochs=0), wall_s=0.0) for seed in (1, 2)]
    assert "stopped 3 (after 1 epoch, 2 not started)" in table_of([behind, *idle])
    assert "stopped (1 not started)" in table_of(idle[:1])


def test_a_reason_that_many_trials_share_is_one_line():
    lines = table_of([trial(n, {"a": n}, state="failed", error="no disk") for n in range(1, 31)]).splitlines()
    assert lines[-1] == "- failed, 30 trials: no disk (1 seed 0, 2 seed 0, 3 seed 0, 4 seed 0 and 26 more)"
    assert table_of([]) == "no trials\n"


def test_the_answer_is_one_sentence_with_interval_and_rivals():
    tops = {1: (96, 97), 2: (95.5, 97), 4: (60, 61), 8: (99, None)}
    trials = [
        trial(
            length * 10 + seed,
            {"model.chunk_lengths": [length]},
            seed=seed,
            **({"score": top1} if top1 is not None else {"state": "stopped"}),
        )
        for length, pair in tops.items()
        for seed, top1 in enumerate(pair)
    ]
    said = answer(ranked(result_of(trials)))
    assert said.startswith("Best: [1], top-1 96.5 (95 % interval ")
    assert ", 2 seeds); 1 other point can't be distinguished from it. " in said
    assert said.endswith(" 1 point of which not all seeds finished is not compared.")
    assert answer(ranked(result_of([trial(1)]))).endswith(
        "1 seed, test set's error alone); there is no other point to compare it with."
    )


def test_without_a_finished_trial_there_is_no_winner():
    sweep = result_of([trial(1, state="failed"), trial(2, {"model.chunk_lengths": [1]}, state="stopped")])
    assert answer(ranked(sweep)) == "No answer: none of the 2 trials was trained and tested to its end."


def test_table_and_answer_speak_of_the_tasks_own_score(monkeypatch):
    monkeypatch.setitem(scores.SCORES, "segmentation", (scores.ScoreName(key="miou", title="mIoU"),))
    result = result_of([trial(1, score=45.0)], task="segmentation")
    assert "mIoU (95 %)" in trial_table(result)
    assert answer(ranked(result)).startswith("Best: [8 8 4 1], mIoU 45.0 (")
    assert "top-1" not in trial_table(result)


def test_numbers_have_three_significant_digits_and_all_whole_ones():
    written = [number(value) for value in (0, 0.0123456, 1.2, 12.345, 999.6, 1234.5, 0.000012)]
    assert written == ["0", "0.0123", "1.2", "12.3", "1,000", "1,234", "1.2e-05"]


def test_what_the_paper_prints_stands_next_to_its_point_named_as_such_and_ranks_nothing():
    trials = [trial(1, {"a": 1}, score=50.0, printed="79.6 (T, Table 7)"), trial(2, {"a": 2}, score=90.0)]
    table = table_of(trials)
    assert [(row["rank"], row["a"], row["the paper's top-1"]) for row in rows_of(table)] == [
        ("1", "2", ""),
        ("2", "1", "79.6 (T, Table 7)"),
    ]
    assert "\nthe paper's top-1: as arXiv 2111.12527v1 prints it" in table
    alone = [replace(one, printed=None) for one in trials]
    assert "paper" not in table_of(alone)
    assert answer(ranked(result_of(trials))) == answer(ranked(result_of(alone)))
