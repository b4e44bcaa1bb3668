"""The terminal's table and the files of a report."""

from dataclasses import replace

from PIL import Image
from synthetic_sweeps import result_of, synthetic_sweep, trial

from morphmlp.tuning.report.ranking import ranked
from morphmlp.tuning.report.report import trial_table, write_report
from morphmlp.tuning.report.words import answer


def rows_of(table):
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.replace("\\|", "!").strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_the_table_has_one_row_per_point_with_mean_and_interval_over_its_seeds():
    trials = [
        trial(1, {"optim.lr": 0.1}, seed=0, score=50.0),
        trial(2, {"optim.lr": 0.1}, seed=1, score=52.0),
        trial(3, {"optim.lr": 0.2}, seed=0, score=90.0),
        trial(4, {"optim.lr": 0.2}, seed=1, score=90.0),
    ]
    first, second = rows_of(trial_table(trials))
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
    table = trial_table(trials)
    first, second = rows_of(table)
    assert first["states"] == "finished 1, stopped 1 (after 2 epochs)"
    assert (second["states"], second["top-1 (95 %)"]) == ("diverged 1, failed 1", "")
    assert table.endswith(
        "\n\n- diverged, 1 trial: no number (9.9 seed 1)\n- failed, 1 trial: training failed: a | b (9.9 seed 0)\n"
    )


def test_points_that_cant_be_told_apart_from_the_best_are_marked_and_the_mark_is_explained():
    tops = (70.0, 69.5, 20.0)
    close = trial_table([trial(n, {"a": n}, score=top1) for n, top1 in enumerate(tops)])
    assert [row["rank"] for row in rows_of(close)] == ["1", "2 =", "3"]
    assert "\n\n= can't be told apart from the best\n" in close
    assert "=" not in trial_table([trial(n, {"a": n}, score=top1) for n, top1 in enumerate((70.0, 20.0))])


def test_one_epoch_is_not_called_epochs():
    assert "stopped (after 1 epoch)" in trial_table([trial(1, state="stopped", epochs=1)])


def test_a_seed_that_was_never_started_is_told_from_those_that_trained():
    behind = trial(1, seed=0, state="stopped", epochs=1)
    idle = [replace(trial(1 + seed, seed=seed, state="stopped", epochs=0), wall_s=0.0) for seed in (1, 2)]
    assert "stopped 3 (after 1 epoch, 2 not started)" in trial_table([behind, *idle])
    assert "stopped (1 not started)" in trial_table(idle[:1])


def test_a_reason_that_many_trials_share_is_one_line():
    lines = trial_table([trial(n, {"a": n}, state="failed", error="no disk") for n in range(1, 31)]).splitlines()
    assert lines[-1] == "- failed, 30 trials: no disk (1 seed 0, 2 seed 0, 3 seed 0, 4 seed 0 and 26 more)"
    assert trial_table([]) == "no trials\n"


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
    assert said.startswith("Best: [1], 96.5 (95 % interval ")
    assert ", 2 seeds); 1 other point can't be told apart from it. " in said
    assert said.endswith(" 1 point of which not all seeds finished is not compared.")
    assert answer(ranked(result_of([trial(1)]))).endswith(
        "1 seed, test set's error alone); there is no other point to compare it with."
    )


def test_without_a_finished_trial_there_is_no_winner():
    sweep = result_of([trial(1, state="failed"), trial(2, {"model.chunk_lengths": [1]}, state="stopped")])
    assert answer(ranked(sweep)) == "No answer: none of the 2 trials was trained and tested to its end."


def test_a_report_is_a_page_and_a_picture(tmp_path):
    for count in (12, 250):
        page, picture = write_report(synthetic_sweep(count), tmp_path, title="t", note="n")
        assert (page.name, picture.name) == ("sweep_report.html", "sweep_report.png")
        assert page.stat().st_size > 20_000
        with Image.open(picture) as image:
            assert image.size[0] > 1000
            assert len(image.convert("L").getcolors(256)) > 20


def test_sweeps_with_next_to_nothing_have_a_report_too(tmp_path):
    for trials in ([], [trial(1)], [trial(1, state="failed")], [trial(1, num_videos=None)]):
        page, picture = write_report(result_of(trials), tmp_path, title="t")
        assert "</html>" in page.read_text(encoding="utf-8")
        assert picture.stat().st_size > 1000
