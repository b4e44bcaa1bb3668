"""What an evaluation is asked for, and what it refuses before Ray starts. The record is a real SQLite store."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from empty_store import empty_store
from stored_scores import HEADER, rows

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_yaml, flat_fields
from morphmlp.data.manifest import manifest_from_rows, write_manifest
from morphmlp.errors import CheckpointError, ConfigError, MorphMLPError
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.experiment import ray_evaluation
from morphmlp.experiment.ray_evaluation import EvaluationArguments
from morphmlp.experiment.ray_test import write_predictions
from morphmlp.experiment.tested_weights import config_of, find_source, find_weights, fitted_weights
from morphmlp.progress import TerminalProgress
from morphmlp.record import Tags
from morphmlp.tasks.factory import task_of
from morphmlp.tracking import RunWriter, open_run, ready_store
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.checkpoint.store import CheckpointFacts
from morphmlp.training.loop.state import new_state, snapshot
from morphmlp.training.record.run_folder import RunFolder, run_lock

UNIT = Path(__file__).parents[1]
SMALL, SCENES = UNIT / "small_experiment.yaml", UNIT / "small_segmentation.yaml"
CPU = torch.device("cpu")
NO_RUN = "0" * 32


def manifest(path, *, videos=6, num_frames=40, items="videos", class_names="abcd"):
    (path.parent / "v.mp4").write_bytes(b"x")
    numbers = range(videos)
    write_manifest(
        manifest_from_rows(
            video_ids=[f"v{number:03d}" for number in numbers],
            paths=[str(path.parent / "v.mp4")] * videos,
            labels=[number % len(class_names) for number in numbers],
            splits=["test"] * videos,
            sizes_bytes=[1] * videos,
            class_names=list(class_names),
            num_frames=[num_frames] * videos,
            items=items,
        ),
        path,
    )
    return path


class Place:
    """A folder with test videos, weights of their experiment in a file, and a run with two checkpoints."""

    def __init__(self, root):
        self.root = root
        self.overrides = {
            "data.test": str(manifest(root / "test.parquet")),
            "cluster.storage": str(root / "runs"),
            "train.ema_decay": 0.5,
        }
        self.config = load_config(SMALL, self.overrides)
        self.weights = root / "weights.pth"
        torch.manual_seed(1)
        torch.save(task_of(self.config).network().state_dict(), self.weights)
        self.folder = RunFolder(root / "runs" / "first")
        self.folder.root.mkdir(parents=True)
        self.folder.experiment.write_text(config_to_yaml(self.config))
        self.state = new_state(task_of(self.config), train=self.config.train, optim=self.config.optim, device=CPU)
        store = run_store(self.config.checkpoint, self.folder)
        self.checkpoints = [self._saved(store, step, score) for step, score in ((2, 70.0), (4, 60.0))]
        tags = {Tags.FINGERPRINT: "f", Tags.MODEL: "small"}
        self.uri = ready_store("demo")
        self.run_id = open_run(
            self.uri, experiment="demo", run_name="first", tags=tags, params=flat_fields(self.config)
        )
        RunWriter(self.uri, self.run_id).finish("FINISHED")

    def _saved(self, store, step, score):
        self.state.model.head.bias.data.fill_(step)
        self.state.averaged.restart()
        self.state.model.head.bias.data.add_(100)
        content = snapshot(self.state, config=self.config, data_fingerprint="6:a")
        return store.save(content, CheckpointFacts(epoch=0, step=step, score=score))

    def prepare(self, checkpoint, *, config=None, scores=None, **overrides):
        arguments = EvaluationArguments(
            checkpoint=str(checkpoint),
            config=None if config is None else str(config),
            overrides={**self.overrides, **{name.replace("__", "."): value for name, value in overrides.items()}},
            scores=scores,
        )
        with TerminalProgress() as progress:
            return ray_evaluation._prepare(arguments, progress)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", empty_store(f"sqlite:///{root / 'mlflow.db'}"))
        patch.chdir(root)
        yield Place(root)


@pytest.mark.parametrize("named", ["name", "folder", "id", "checkpoint", "file"])
def test_a_run_is_named_in_many_ways(place, named):
    newest = place.folder.root / "checkpoints" / place.checkpoints[1].name
    names = {
        "name": "first",
        "folder": place.folder.root,
        "id": place.run_id,
        "checkpoint": newest,
        "file": newest / "checkpoint.pt",
    }
    job = place.prepare(names[named])
    assert job.weights.tensors["head.bias"].tolist() == [4.0] * 4  # the averaged ones of the last checkpoint
    assert (job.weights.run_id, job.weights.run_name, job.config.name) == (place.run_id, "first", "small")
    assert job.folder.root == place.root / "runs" / "evaluations" / f"first-test-{job.header.digest[:8]}"
    assert job.store == job.folder.scores
    assert job.header.views == "2 clips x 3 crops"


@pytest.mark.parametrize(
    ("with_file", "overrides", "folder"),
    [
        (False, {}, "runs"),
        (False, {"cluster.storage": "third"}, "third"),
        (True, {}, "elsewhere"),
        (True, {"cluster.storage": "third"}, "third"),
    ],
)
def test_runs_are_looked_for_where_the_experiment_stores_them(place, tmp_path, with_file, overrides, folder):
    file = tmp_path / "elsewhere.yaml"
    stored_there = {**place.overrides, "cluster.storage": "elsewhere"}
    file.write_text(config_to_yaml(load_config(SMALL, stored_there)))
    with pytest.raises(ConfigError, match=f"runs are looked for in {folder} and"):
        find_source("nothing", config=str(file) if with_file else None, overrides=overrides)


def test_looking_for_a_run_makes_no_record(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'record' / 'mlflow.db'}")
    with pytest.raises(ConfigError, match="nothing: no such file, folder or run"):
        place.prepare("nothing")
    assert list(tmp_path.iterdir()) == []


def test_which_checkpoint_and_which_weights_are_tested_follows_the_configuration(place):
    best = place.prepare("first", test__checkpoint="best")
    assert best.weights.tensors["head.bias"].tolist() == [2.0] * 4
    assert best.found.which == "best checkpoint, step 2, validation top-1 70.00"
    raw = place.prepare("first", test__weights="raw")
    assert raw.weights.tensors["head.bias"].tolist() == [104.0] * 4
    assert len({job.header.digest for job in (best, raw, place.prepare("first"))}) == 3


def test_a_file_of_weights_needs_a_configuration_and_is_the_same_in_any_form(place, tmp_path):
    job = place.prepare(place.weights, config=SMALL)
    assert (job.weights.run_id, job.weights.run_name) == ("", "weights")
    nested = tmp_path / "nested.pth"
    torch.save({"state_dict": torch.load(place.weights)}, nested)
    assert place.prepare(nested, config=SMALL).header.weights_sha256 == job.header.weights_sha256


def test_overrides_change_the_views_and_thereby_the_store(place):
    job = place.prepare("first", test__num_clips=5, test__num_crops=1)
    assert (job.header.num_clips, job.header.num_crops, job.header.views) == (5, 1, "5 clips x 1 crop")
    assert job.store != place.prepare("first").store
    assert place.prepare("first", scores=place.root / "mine").store == place.root / "mine"


def as_evaluation(place):
    run_id = open_run(place.uri, experiment="demo", run_name="tested", tags={Tags.EVALUATES: NO_RUN}, params={})
    return place.prepare(run_id)


def of_a_run_at_work(place):
    name = "working"
    folder = RunFolder(place.root / "runs" / name)
    if not folder.root.exists():
        folder.root.mkdir()
        folder.experiment.write_text(config_to_yaml(place.config))
        content = snapshot(place.state, config=place.config, data_fingerprint="6:a")
        run_store(place.config.checkpoint, folder).save(content, CheckpointFacts(epoch=0, step=1, score=None))
    open_run(place.uri, experiment="demo", run_name=name, tags={}, params={})
    return place.prepare(name)


def test_a_run_that_was_killed_is_tested_though_its_record_says_that_it_runs(place):
    with pytest.raises(CheckpointError, match="still at work"):
        of_a_run_at_work(place)
    with run_lock(RunFolder(place.root / "runs" / "working")), pytest.raises(CheckpointError, match="still at work"):
        place.prepare("working")
    assert place.prepare("working").weights.run_name == "working"  # the lock's file is there, nobody holds it
    RunFolder(place.root / "runs" / "working").lock.unlink()


def damaged_weights(place):
    path = place.root / "damaged.pth"
    path.write_bytes(place.weights.read_bytes()[:1000])
    return place.prepare(path, config=SMALL)


def not_finite(place):
    state = torch.load(place.weights)
    state["head.bias"][0] = float("nan")
    torch.save(state, place.root / "nan.pth")
    return place.prepare(place.root / "nan.pth", config=SMALL)


def damaged_manifest(place):
    path = place.root / "damaged.parquet"
    path.write_bytes((place.root / "test.parquet").read_bytes()[:-20])
    return place.prepare("first", data__test=str(path))


def of_segmentation(place):
    return place.prepare(place.weights, config=SCENES, train__ema_decay=None)


def with_more_clips_than_frames(place):
    short = manifest(place.root / "short.parquet", num_frames=7)
    return place.prepare("first", data__test=str(short), test__num_clips=8)


def with_clips_of_images(place):
    images = manifest(place.root / "images.parquet", items="images")
    config = place.root / "images.yaml"
    still = {"model.temporal": "none", "clip.num_frames": 1, "clip.frame_stride": None, "clip.sampling": "segments"}
    config.write_text(config_to_yaml(load_config(SMALL, {**place.overrides, **still})))
    return place.prepare(place.weights, config=config, data__test=str(images))


def with_other_classes(place):
    train = manifest(place.root / "others.parquet", class_names="abcx")
    return place.prepare("first", data__train=str(train))


def with_the_record_away(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        return place.prepare("first")


REFUSED = {
    "no such thing": (lambda p: p.prepare("nothing"), "--checkpoint: nothing: no such file, folder or run; runs are"),
    "no such id": (lambda p: p.prepare(NO_RUN), f"--checkpoint: {NO_RUN}: no such file, folder or run"),
    "an empty folder": (lambda p: p.prepare(p.root), "holds no checkpoint.pt, as a checkpoint does, and no exp"),
    "no configuration": (lambda p: p.prepare(p.weights), "--config FILE: is missing"),
    "an evaluation": (as_evaluation, f"is itself an evaluation, of {NO_RUN}"),
    "at work": (of_a_run_at_work, "this run is still at work by its record"),
    "damaged weights": (damaged_weights, "damaged.pth"),
    "not finite": (not_finite, r"1 tensors hold numbers that aren't finite \(head.bias\)"),
    "another shape": (
        lambda p: p.prepare(p.weights, config=SMALL, model__embed_dims=[16, 32, 32, 32]),
        r"--config has .*: widths \[16, 16, 32, 32\] against \[16, 32, 32, 32\]",
    ),
    "other classes": (lambda p: p.prepare("first", model__num_classes=7), "classes 4 against 7"),
    "other frames": (lambda p: p.prepare("first", clip__num_frames=16), "frames 4 against 16"),
    "another task": (of_segmentation, "has labels for task classification, the experiment's is segmentation"),
    "too few outputs": (lambda p: p.prepare("first", model__num_classes=3), "has label 3, model.num_classes is 3"),
    "no manifest": (lambda p: p.prepare("first", data__test="none.parquet"), "no such manifest: data.test"),
    "a damaged manifest": (damaged_manifest, "data.test: .*damaged.parquet: is not a Parquet file"),
    "more clips than frames": (with_more_clips_than_frames, "8 clips of videos of at most 7 frames .*; use at most 7"),
    "clips of images": (with_clips_of_images, "2 clips of an image are 2 times the same picture; use 1"),
    "other names": (with_other_classes, "label 3 is 'd' in .*, and 'x' in data.train"),
    "an unknown field": (lambda p: p.prepare("first", test__clips=3), "test.clips"),
    "the record away": (with_the_record_away, "tracking store http://127.0.0.1:9: no answer"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_tested_is_one_clear_line(place, fault):
    ask, words = REFUSED[fault]
    with pytest.raises(MorphMLPError, match=words) as refused:
        ask(place)
    assert "\n" not in str(refused.value)


def test_an_empty_split_is_one_clear_line(place):
    path = manifest(place.root / "gone.parquet")
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(MorphMLPError, match=r"data.test: .*gone.parquet: holds no videos"):
        place.prepare("first", data__test=str(path))


def test_weights_of_a_classifier_do_not_fit_a_network_that_segments(place):
    source = find_source(str(place.weights), config=None, overrides={})
    config = config_of(source, str(SCENES), {})
    found = find_weights(source, config, print)
    with pytest.raises(MorphMLPError, match="a classifier against semantic_fpn") as refused:
        fitted_weights(found, config, tuple("abcd"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_predictions_are_one_file_and_of_many_views_only_their_number(tmp_path, monkeypatch, limit):
    monkeypatch.setattr("morphmlp.experiment.ray_test.VIEWS_IN_RECORD_BYTES", limit)
    with ScoreStore.create(tmp_path / "scores", replace(HEADER, num_videos=3)) as store:
        store.append(rows([2, 1, 0]))
        write_predictions(store, tmp_path / "predictions.parquet")
        expected = store.read() if limit else store.read_without_views()
    assert pq.read_table(tmp_path / "predictions.parquet").equals(expected)
