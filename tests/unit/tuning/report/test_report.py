"""The files of a sweep: page and picture; winners that can be trained at once, and say where they come from."""

from pathlib import Path

import pytest
from PIL import Image
from synthetic_sweeps import result_of, synthetic_sweep, trial

from morphmlp.config import load_config
from morphmlp.errors import SweepError
from morphmlp.tuning.report.report import write_report, write_winners

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
LENGTHS = ([8, 8, 4, 1], [4, 4, 4, 1], [2, 2, 2, 1], [1, 1, 1, 1])


def sweep_of(top1, **changes):
    trials = [
        trial(n, {"model.chunk_lengths": lengths}, score=value, run_id=f"run{n}", **changes)
        for n, (lengths, value) in enumerate(zip(LENGTHS, top1, strict=False), 1)
    ]
    configs = {one.title: load_config(SMALL, {**one.point, "train.epochs": 7, "name": "s"}) for one in trials}
    return result_of(trials), configs


def test_each_winner_loads_as_its_points_experiment_with_the_sweeps_overrides(tmp_path):
    result, configs = sweep_of((90, 89, 88, 40))
    files = write_winners(result, configs, tmp_path / "winners")
    assert [file.name for file in files] == ["001_8-8-4-1.yaml", "002_4-4-4-1.yaml", "003_2-2-2-1.yaml"]
    for file, title in zip(files, ("[8 8 4 1]", "[4 4 4 1]", "[2 2 2 1]"), strict=True):
        assert load_config(file) == configs[title]
        assert load_config(file).train.epochs == 7


def test_a_comment_says_sweep_rank_interval_runs_and_how_to_train(tmp_path):
    result, configs = sweep_of((90, 89))
    first, second = write_winners(result, configs, tmp_path)
    lines = [line for line in second.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert lines[0] == (
        f"# Sweep synthetic, MLflow run {'f' * 32}: rank 2 of 2 points, indistinguishable from the best."
    )
    assert "Test top-1 89.0 (95 % interval 83.9-92.6, 1 seed, test set's error alone)" in "\n".join(lines)
    assert "# Runs: run2" in lines
    assert lines[-1] == f"# python pipelines/train.py --config {second}"
    assert "rank 1 of 2 points, best." in first.read_text(encoding="utf-8")


def test_a_cheaper_point_behind_the_best_is_a_winner_of_its_front(tmp_path):
    expensive, cheap, poor = (
        trial(n, {"model.chunk_lengths": LENGTHS[n]}, score=top1, gmacs=gmacs)
        for n, (top1, gmacs) in enumerate(((90, 2.0), (70, 1.0), (40, 2.0)))
    )
    configs = {one.title: load_config(SMALL, dict(one.point)) for one in (expensive, cheap, poor)}
    files = write_winners(result_of([expensive, cheap, poor]), configs, tmp_path)
    assert [file.name for file in files] == ["001_8-8-4-1.yaml", "002_4-4-4-1.yaml"]
    assert "on the front of: GMAC" in files[1].read_text(encoding="utf-8")


def test_at_most_five_are_written_of_many_that_cant_be_distinguished(tmp_path):
    trials = [trial(n, {"train.epochs": n}, score=80.0) for n in range(1, 21)]
    configs = {one.title: load_config(SMALL, dict(one.point)) for one in trials}
    assert len(write_winners(result_of(trials), configs, tmp_path)) == 5


def test_a_text_with_line_breaks_in_a_name_cant_leave_the_comment(tmp_path):
    result, configs = sweep_of((90,))
    evil = result_of(result.trials, run_name="a\nmodel: {}")
    (file,) = write_winners(evil, configs, tmp_path)
    assert load_config(file) == configs["[8 8 4 1]"]


def test_a_sweep_without_results_has_no_winners(tmp_path):
    assert write_winners(result_of([trial(1, state="failed")]), {}, tmp_path / "winners") == ()
    assert not (tmp_path / "winners").exists()


def test_a_point_whose_experiment_is_missing_is_named(tmp_path):
    result, configs = sweep_of((90, 89))
    with pytest.raises(SweepError, match=r"winners: \[8 8 4 1\]: its experiment isn't among the 1 given"):
        write_winners(result, {"[4 4 4 1]": configs["[4 4 4 1]"]}, tmp_path)


def test_a_report_is_a_page_and_a_picture(tmp_path):
    for count in (12, 60):
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
