"""A sweep's result goes to the real store, every trial to its own run, with columns that MLflow can draw."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
from empty_store import empty_store
from mlflow import MlflowClient
from sweep_records import read_children, read_sweep
from synthetic_sweeps import result_of, synthetic_sweep, trial

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig
from morphmlp.progress import TerminalProgress
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.reporting.tables.published import Ablation, Variant
from morphmlp.tasks.scores import TOP1
from morphmlp.tracking import RunWriter, open_run
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.sweep_record import TrialRecorder, stage_params, write_sweep, write_trial
from morphmlp.tuning.run.trial_log import TrialLog
from morphmlp.tuning.run.trial_queue import TrialQueue, make_job
from morphmlp.tuning.run.trials import TrialEnd
from morphmlp.tuning.search.scheduler import PointSource
from morphmlp.tuning.space.space import expand


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('sweeps') / 'mlflow.db'}"
    empty_store(uri)
    return uri


def parent_of(uri, name):
    return RunWriter(uri, open_run(uri, experiment="demo", run_name=name, tags={Tags.KIND: "sweep"}, params={}))


def child_of(parent, name):
    params = {"model.chunk_lengths": [8, 8, 4, 1]}
    run_id = open_run(parent.uri, experiment="demo", run_name=name, tags={}, params=params, parent_run_id=parent.run_id)
    return RunWriter(parent.uri, run_id)


def recorded(uri, name, sweep):
    """The result of a sweep that was put in the store; every fifth failed trial never opened a run."""
    parent = parent_of(uri, name)
    trials = []
    for one in sweep.trials:
        if one.state == "failed" and one.number % 5 == 0:
            trials.append(one)
            continue
        writer = child_of(parent, one.run_name)
        trials.append(dataclasses.replace(one, run_id=writer.run_id))
        write_trial(writer, trials[-1], task="classification")
        writer.finish("FINISHED" if one.state == "finished" else "KILLED" if one.state == "stopped" else "FAILED")
    result = dataclasses.replace(sweep, trials=tuple(trials), parent_run_id=parent.run_id, run_name=name)
    write_sweep(parent, result)
    return result


@pytest.mark.parametrize(
    ("points", "seeds"),
    [
        pytest.param(6, (0, 1), id="12 trials"),
        pytest.param(250, (3, 4), id="500 trials", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_comes_back_from_the_store_as_it_was(store, points, seeds):
    result = recorded(store, f"sweep of {points}", synthetic_sweep(points, seeds))
    assert len(result.trials) == 2 * points
    assert read_sweep(store, result.parent_run_id) == result
    runs = {run.run_id: run for run in read_children(store, result.parent_run_id)}
    assert runs.keys() == {one.run_id for one in result.trials if one.run_id is not None}
    for one in result.trials:
        if one.run_id is not None:
            assert_holds(runs[one.run_id], one)


def assert_holds(run, one):
    """A run has what is to be compared of its trial."""
    assert json.loads(run.tags[Tags.POINT]) == one.point
    assert (run.tags[Tags.TRIAL_STATE], run.tags.get(Tags.ERROR)) == (one.state, one.error)
    assert {key: run.metrics[f"test/{key}"] for key in one.scores} == one.scores
    assert run.metrics.get(TOP1.val_metric) == one.val_score
    assert run.metrics[Metrics.TRIAL_PARAMS] == one.params
    assert run.metrics[Metrics.TRIAL_EPOCHS] == one.epochs
    assert json.loads(run.tags.get(Tags.TRIAL_REPLACES, "null")) == one.replaces


def test_all_ends_are_distinguished_with_their_reasons(store):
    states = ("finished", "stopped", "timed_out", "diverged", "failed")
    trials = [trial(n, state=state, run_name=f"{state} one") for n, state in enumerate(states, 1)]
    trials.append(trial(6, state="failed", run_name="never opened", val_score=None, cpu_s=None, wall_s=None))
    sweep = recorded(store, "all ends", result_of(trials))
    assert read_sweep(store, sweep.parent_run_id) == sweep
    tags = [run.tags for run in read_children(store, sweep.parent_run_id)]
    ends = {(own[Tags.TRIAL_STATE], own.get(Tags.ERROR)) for own in tags}
    assert ends == {("finished", None), *((state, "a reason") for state in states[1:])}


def test_what_the_run_measured_itself_isnt_written_twice(store):
    parent = parent_of(store, "measured")
    writer = child_of(parent, "measured-001")
    writer.metrics([MetricPoint(TOP1.test_metric, 50.0, 0, 1), MetricPoint(TOP1.val_metric, 48.0, 4, 1)])
    write_trial(writer, trial(run_id=writer.run_id), task="classification")
    write_trial(writer, trial(run_id=writer.run_id), task="classification")
    keys = [TOP1.test_metric, TOP1.val_metric, Metrics.RUN_WALL_S, Metrics.TRIAL_GMACS]
    assert [point.key for point in writer.history(keys)] == keys


def test_a_failed_trial_that_finishes_when_tried_again_has_its_new_end(store):
    parent = parent_of(store, "again")
    writer = child_of(parent, "again-001")
    write_trial(
        writer,
        trial(run_id=writer.run_id, run_name="again-001", state="failed", wall_s=5.0, epochs=1),
        task="classification",
    )
    second = trial(run_id=writer.run_id, run_name="again-001", wall_s=60.0)
    write_trial(writer, second, task="classification")
    (run,) = read_children(store, parent.run_id)
    assert (run.tags[Tags.TRIAL_STATE], run.tags[Tags.ERROR]) == ("finished", "")
    assert (run.metrics[Metrics.RUN_WALL_S], run.metrics[Metrics.TRIAL_EPOCHS]) == (60.0, 4)


def test_swept_lists_become_a_number_for_each_stage(store):
    parent = parent_of(store, "columns")
    writer = child_of(parent, "columns-001")
    write_trial(
        writer,
        trial(run_id=writer.run_id, values={"model.chunk_lengths": [8, 16, 4, 1], "optim.lr": 0.1}),
        task="classification",
    )
    (run,) = read_children(store, parent.run_id)
    stages = {name: text for name, text in run.params.items() if name.startswith("sweep.")}
    assert stages == {f"sweep.chunk_lengths.stage{stage}": str(n) for stage, n in enumerate((8, 16, 4, 1), 1)}
    assert dict(stage_params({"augment.flip": 0.5, "a.names": ["x", "y"]})) == {}


def test_more_children_than_a_page_of_the_store_are_all_read(store, monkeypatch):
    monkeypatch.setattr("morphmlp.tracking.runs.PAGE", 3)
    sweep = recorded(store, "pages", result_of([trial(n, seed=n, run_name=f"pages-{n}") for n in range(1, 9)]))
    numbers = sorted(int(run.tags[Tags.TRIAL_NUMBER]) for run in read_children(store, sweep.parent_run_id))
    assert numbers == list(range(1, 9))


def test_children_of_another_sweep_dont_come_along(store):
    first = recorded(store, "first of two", result_of([trial(1, run_name="x-1")]))
    recorded(store, "second of two", result_of([trial(1, run_name="x-2"), trial(2, run_name="x-3")]))
    assert [run.run_name for run in read_children(store, first.parent_run_id)] == ["x-1"]


def test_the_record_shows_a_trials_end_as_tags_that_can_be_searched(store):
    parent = parent_of(store, "tags")
    writer = child_of(parent, "tags-001")
    write_trial(writer, trial(7, run_id=writer.run_id, seed=3, state="diverged"), task="classification")
    tags = MlflowClient(store).get_run(writer.run_id).data.tags
    assert {tags[Tags.TRIAL_STATE], tags[Tags.TRIAL_SEED], tags[Tags.TRIAL_NUMBER]} == {"diverged", "3", "7"}
    assert tags[Tags.TRIAL_TITLE] == "[8 8 4 1]"


def test_a_trial_carries_what_the_paper_prints_for_its_points_fields(tmp_path):
    small = Path(__file__).parents[2] / "small_experiment.yaml"
    sweep = SweepConfig(name="s", experiment=str(small), overrides={}, space={"model.mlp_ratio": (2.0, 3.0)})
    rows = (Variant(variant="wide", fields={"model.mlp_ratio": 3}, top1=79.6),)
    table = Ablation(table=7, title="t", dataset="imagenet", network="MorphMLP-T", epochs=100, rows=rows)

    folder = SweepFolder(root=tmp_path)
    queue = TrialQueue(
        PointSource(expand(sweep, read_yaml(small)).points),
        seeds=(0,),
        file=tmp_path / "trials.jsonl",
        make_point=None,
        make_job=partial(make_job, sweep=sweep, folder=folder, parent_run_id="p", uri="sqlite://", source={}),
    )
    recorder = TrialRecorder("sqlite://", "demo", folder, TerminalProgress(), [table])
    printed = {}
    while (entry := queue.next()) is not None:
        TrialLog(entry.view.path).ended(TrialEnd(state="finished", run_id="r", score=50.0))
        entry.view.read_silently()
        printed[entry.point.values["model.mlp_ratio"]] = recorder.trial(entry).printed
    assert printed == {2.0: None, 3.0: "79.6 (MorphMLP-T, ImageNet-1K, Table 7)"}
