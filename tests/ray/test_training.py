"""Whole small runs on a real local Ray: the loss curve, the record, broken videos, a killed worker."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import Manifest, read_manifest, write_manifest
from morphmlp.errors import CheckpointError, ClusterError, ManifestError, QuarantineLimitError, RunStoppedError
from morphmlp.experiment.data_splits import read_splits
from morphmlp.experiment.ray_experiment import run_experiment
from morphmlp.experiment.result import ExperimentResult
from morphmlp.record import Metrics, RunSummary, Tags
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.scores import TOP1
from morphmlp.tracking import RunWriter, find_run, tracking_uri
from morphmlp.training.checkpoint.content import load_values
from morphmlp.training.loop.state import checkpoint_from
from morphmlp.training.record.run_events import read_events
from morphmlp.training.record.run_folder import RunFolder

MakeConfig = Callable[..., ExperimentConfig]


class Silent:
    """Progress that nobody watches; keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = 0

    def phase(self, title: str, *, total: int, unit: str) -> None:
        self.lines.append(f"{title} {total} {unit}")

    def update(self, done: int, note: str = "") -> None:
        self.done = done

    def line(self, text: str) -> None:
        self.lines.append(text)


@dataclass(frozen=True)
class Finished:
    """A finished run as its record shows it."""

    result: ExperimentResult
    summary: RunSummary
    losses: dict[int, float]
    folder: Path


def finish(config: ExperimentConfig, placement: Placement, name: str) -> Finished:
    workers = config.cluster.num_workers or 1
    placement = replace(placement, num_workers=workers, min_workers=workers, max_workers=workers)
    result = run_experiment(config, read_splits(config), placement, run_name=name, progress=Silent())
    summary = find_run(tracking_uri(), run_name=name)
    assert summary is not None
    points = RunWriter(tracking_uri(), summary.run_id).history([Metrics.TRAIN_LOSS])
    return Finished(result, summary, {p.step: p.value for p in points}, Path(config.cluster.storage) / name)


@pytest.fixture(scope="module")
def two_workers(make_config: MakeConfig, placement: Placement) -> Finished:
    return finish(make_config(train__max_steps=20, record__register_as="tiny"), placement, "two-workers")


@pytest.fixture(scope="module")
def one_worker(make_config: MakeConfig, placement: Placement) -> Finished:
    name = "one-wörker"  # Ray itself takes no such name
    config = make_config(train__max_steps=20, cluster__num_workers=1, record__system_metrics=True)
    return finish(config, placement, name)


@pytest.mark.slow
def test_one_and_two_workers_follow_the_same_loss_curve(one_worker: Finished, two_workers: Finished) -> None:
    assert list(one_worker.losses) == list(two_workers.losses) == list(range(1, 21))
    assert [two_workers.losses[step] for step in range(1, 21)] == pytest.approx(
        [one_worker.losses[step] for step in range(1, 21)], rel=1e-4
    )
    assert len(set(one_worker.losses.values())) == 20


@pytest.mark.slow
def test_the_record_has_what_machines_did_where_that_is_asked_for(one_worker: Finished, two_workers: Finished) -> None:
    cpu = f"{Metrics.SYSTEM}{socket.gethostname()}/cpu_utilization_percentage"
    assert 0 < one_worker.summary.metrics[cpu] <= 100
    assert not RunFolder(one_worker.folder).system_metrics_waiting.read_bytes()
    assert not [key for key in two_workers.summary.metrics if key.startswith(Metrics.SYSTEM)]


def test_every_video_is_scored_exactly_once(two_workers: Finished) -> None:
    predictions = pq.read_table(two_workers.folder / "predictions.parquet")
    assert two_workers.result.num_videos == 16
    assert len(set(predictions["video_id"].to_pylist())) == 16
    assert {len(views) for views in predictions["view_logits"].to_pylist()} == {2 * 3}
    assert two_workers.summary.metrics[Metrics.VAL_NUM_VIDEOS] == 16


PREDICT = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model("models:/tiny/1")
answers = model.predict(json.loads(sys.argv[1]))
print(json.dumps({"answers": answers.to_dict("records"), "example": list(model.input_example)}, default=list))
"""


def test_the_logged_model_answers_in_another_process_as_the_test_did(two_workers: Finished, videos: Path) -> None:
    predictions = pq.read_table(two_workers.folder / "predictions.parquet")
    test = read_manifest(videos / "test.parquet")
    path_of = dict(zip(test.table["video_id"].to_pylist(), test.table["path"].to_pylist(), strict=True))
    paths = [path_of[video_id] for video_id in predictions["video_id"].to_pylist()]
    asked = [*paths, "/nowhere.mp4"]
    process = subprocess.run(
        [sys.executable, "-c", PREDICT, json.dumps(asked)],
        env=os.environ | {"MLFLOW_TRACKING_URI": tracking_uri()},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    *answers, missing = found["answers"]
    logits = np.array(predictions["view_logits"].to_pylist())
    shares = softmax(logits.mean(axis=1), axis=1)
    order = np.argsort(-shares, axis=1)[:, :5]
    assert [answer["path"] for answer in answers] == paths
    assert [answer["names"] for answer in answers] == [[test.class_names[k] for k in best] for best in order]
    assert np.array([answer["probabilities"] for answer in answers]) == pytest.approx(
        np.take_along_axis(shares, order, axis=1), abs=1e-5
    )
    assert (missing["names"], missing["path"]) == ([], "/nowhere.mp4")
    assert missing["error"] == "no such file or directory"
    assert found["example"] == test.table["path"].to_pylist()[:2]


def test_the_record_holds_what_defines_the_run(two_workers: Finished) -> None:
    tags, params = two_workers.summary.tags, two_workers.summary.params
    assert two_workers.summary.status == "FINISHED"
    assert tags[Tags.FINGERPRINT] == two_workers.result.fingerprint
    assert tags[Tags.DATA_TRAIN].startswith("96:")
    assert tags[Tags.DATA_TEST].startswith("16:")
    assert tags[Tags.DECODER].startswith("pyav ")
    assert tags[Tags.PRECISION] == "fp32"
    assert {Tags.GIT_COMMIT, Tags.GIT_DIRTY, Tags.HARDWARE, Tags.VERSION + "ray"} <= tags.keys()
    assert params["model.chunk_lengths"] == "[8, 4, 4, 1]"
    assert params["network.chunk_lengths"] == "8-4-4-1"
    assert params["network.depths"] == "1-1-1-1"
    assert {
        Metrics.TRAIN_LR,
        Metrics.TRAIN_GRAD_NORM,
        Metrics.TRAIN_STEP_S,
        Metrics.TRAIN_DATA_WAIT_S,
        Metrics.TRAIN_CLIPS_PER_S,
        Metrics.TRAIN_EPOCH_LOSS,
        TOP1.val_metric,
        TOP1.test_metric,
        Metrics.TEST_NUM_VIDEOS,
        Metrics.RUN_WALL_S,
    } <= two_workers.summary.metrics.keys()


def test_the_last_checkpoint_loads(two_workers: Finished) -> None:
    import torch

    with (Path(two_workers.result.checkpoint) / "checkpoint.pt").open("rb") as file:
        checkpoint = checkpoint_from(load_values(file))
    network = task_of(checkpoint.config).network().eval()
    network.load_state_dict(checkpoint.model)
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 16, 32, 32)).shape == (1, 8)


@pytest.mark.long
def test_a_run_that_no_longer_improves_is_finished_and_tested(make_config: MakeConfig, placement: Placement) -> None:
    fields = {"train__early_stopping": {"epochs": 1, "min_delta": 100.0}, "train__freeze": ["stem", "stage1"]}
    config = make_config(train__epochs=10, optim__layer_decay=0.8, train__class_weights="balanced", **fields)
    run = finish(config, placement, "no-longer-improves")
    assert run.summary.status == "FINISHED"
    epochs = len(RunWriter(tracking_uri(), run.summary.run_id).history([TOP1.val_metric]))
    assert epochs == 2
    # A machine that does much else may make workers silent for so long that it's an event too.
    (event,) = [event for event in read_events(run.folder / "events.jsonl") if event.text.startswith("ended early")]
    assert event.text.startswith("ended early: no top-1 better than ")
    assert event.text.endswith(" of epoch 1 in the 1 epochs since (train.early_stopping)")
    assert run.summary.tags[Tags.EVENTS].endswith(event.text)
    assert run.result.tested.startswith(f"last checkpoint, step {max(run.losses)}")
    log = (run.folder / "log.txt").read_text()
    assert "train.class_weights: 1 (" in log
    assert "train.freeze: " in log


@pytest.mark.slow
def test_a_run_of_so_many_steps_validates_inside_epochs_and_resumes_there(
    make_config: MakeConfig, placement: Placement, one_worker: Finished
) -> None:
    """Two workers are asked to stop within the second epoch's round; one worker goes on."""
    in_steps = {"train__epochs": None, "train__steps": 14, "optim__warmup_epochs": None, "optim__warmup_steps": 6}
    more = {"execution__validate_every_steps": 4, "checkpoint__every_minutes": None}
    config = make_config(**in_steps, **more)
    folder = Path(config.cluster.storage) / "in-steps"

    def ask_after_step_5() -> None:
        while not (folder / "progress.jsonl").exists() or max(steps_reported(folder), default=0) < 5:
            time.sleep(0.02)
        (folder / "stop-requested").write_text("maintenance")

    threading.Thread(target=ask_after_step_5, daemon=True).start()
    with pytest.raises(RunStoppedError):
        finish(config, placement, "in-steps")
    assert 5 <= max(steps_reported(folder)) < 14
    run = finish(replace(config, cluster=replace(config.cluster, num_workers=1)), placement, "in-steps")
    assert steps_reported(folder) == list(run.losses) == list(range(1, 15))
    history = RunWriter(tracking_uri(), run.summary.run_id).history
    assert [point.step for point in history([TOP1.val_metric])] == [4, 8, 12, 14]
    assert [point.step for point in history([Metrics.TRAIN_ROUND_LOSS])] == [4, 8, 12, 14]
    assert run.result.tested.startswith("last checkpoint, step 14, validation top-1")
    # Until the learning rates differ, at the end of warm-up, it is the run of so many epochs.
    assert [run.losses[step] for step in range(1, 8)] == pytest.approx(
        [one_worker.losses[step] for step in range(1, 8)], rel=1e-4
    )
    log = (folder / "log.txt").read_text()
    assert "step 12: validation top-1" in log


def steps_reported(folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    return [line["progress"]["step"] for line in lines if line.get("progress")]


def test_a_finished_run_isnt_started_again(
    two_workers: Finished, make_config: MakeConfig, placement: Placement
) -> None:
    config = make_config(train__max_steps=20)
    with pytest.raises(CheckpointError, match="that run is finished"):
        finish(config, placement, "two-workers")


def test_a_run_name_that_holds_another_experiment_is_refused(
    two_workers: Finished, make_config: MakeConfig, placement: Placement
) -> None:
    with pytest.raises(CheckpointError, match=r"optim.lr: 0.001 -> 0.01"):
        finish(make_config(train__max_steps=20, optim__lr=0.01), placement, "two-workers")


@pytest.fixture(scope="module")
def broken_videos(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the manifests, in each of which four kinds of broken files stand in the first places."""
    folder = tmp_path_factory.mktemp("broken")
    for split in ("train", "val", "test"):
        manifest = read_manifest(videos / f"{split}.parquet")
        paths = manifest.table["path"].to_pylist()
        content = Path(paths[0]).read_bytes()
        broken = [folder / f"{split}-{name}.mp4" for name in ("text", "empty", "gone", "cut")]
        broken[0].write_text("not a video")
        broken[1].touch()
        broken[3].write_bytes(content[: len(content) // 3])
        paths[: len(broken)] = map(str, broken)
        table = manifest.table.set_column(1, manifest.table.schema.field("path"), [paths])
        write_manifest(Manifest(table, manifest.class_names), folder / f"{split}.parquet")
    return folder


@pytest.mark.slow
def test_broken_videos_of_all_splits_have_their_reasons_and_the_others_their_score(
    broken_videos: Path, make_config: MakeConfig, placement: Placement
) -> None:
    config = make_config(
        data={split: str(broken_videos / f"{split}.parquet") for split in ("train", "val", "test")},
        train__epochs=1,
        ingest__max_quarantined_share=0.25,
    )
    run = finish(config, placement, "some-broken")
    messages = {
        Path(row["path"]).stem: row["message"] for row in pq.read_table(run.folder / "quarantine.parquet").to_pylist()
    }
    kinds = ("cut", "empty", "gone", "text")
    assert messages.keys() == {f"{split}-{kind}" for split in ("train", "val", "test") for kind in kinds}
    assert {messages[f"{split}-empty"] for split in ("train", "val", "test")} == {"the file is empty (0 bytes)"}
    assert {messages[f"{split}-gone"] for split in ("train", "val", "test")} == {"no such file or directory"}
    assert len(run.losses) == 6
    assert (run.result.num_videos, run.result.num_quarantined) == (12, 4)
    assert run.summary.metrics[Metrics.VAL_NUM_VIDEOS] == 12
    assert pq.read_table(run.folder / "predictions.parquet").num_rows == 12
    unscored = {line.split(" (", 1)[1] for line in run.result.unscored}
    assert unscored == {f"{broken_videos / f'test-{kind}.mp4'}): {messages[f'test-{kind}']}" for kind in kinds}


@pytest.mark.slow
def test_too_many_broken_videos_stop_the_run_with_one_line(
    broken_videos: Path, make_config: MakeConfig, placement: Placement
) -> None:
    train = str(broken_videos / "train.parquet")
    config = make_config(data__train=train, train__epochs=1, ingest__max_quarantined_share=0.03)
    with pytest.raises(QuarantineLimitError, match=r"of 96 train videos can't be used.*ingest.max_quarantined_share"):
        finish(config, placement, "too-many-broken")
    summary = find_run(tracking_uri(), run_name="too-many-broken")
    assert summary is not None
    assert summary.status == "FAILED"


@pytest.mark.slow
def test_videos_that_are_not_there_are_told_before_anything_is_recorded(
    broken_videos: Path, make_config: MakeConfig, placement: Placement
) -> None:
    config = make_config(data__test=str(broken_videos / "test.parquet"))
    with pytest.raises(ManifestError, match=r"data\.test: 2 of 16 files looked at .* no such file or directory"):
        finish(config, placement, "not-there")
    assert not (Path(config.cluster.storage) / "not-there").exists()
    assert find_run(tracking_uri(), run_name="not-there") is None


def test_workers_that_cant_fit_are_refused_before_anything_is_recorded(
    make_config: MakeConfig, placement: Placement
) -> None:
    with pytest.raises(ClusterError, match=r"memory: .*: 2 workers need .* Ray counts .* train.micro_batch_size"):
        finish(make_config(augment__repeats=100_000), placement, "too-large")
    assert not (Path(make_config().cluster.storage) / "too-large").exists()


@pytest.mark.long
def test_a_killed_worker_costs_no_result(make_config: MakeConfig, placement: Placement) -> None:
    config = make_config(train__epochs=6)
    folder = Path(config.cluster.storage) / "killed-worker"
    killed: list[int] = []

    def kill_when_the_second_checkpoint_is_there() -> None:
        while not any((folder / "checkpoints").glob("step-00000012-*/complete.json")):
            time.sleep(0.1)
        pid = next(train_worker_pids())
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_when_the_second_checkpoint_is_there, daemon=True)
    killer.start()
    run = finish(config, placement, "killed-worker")
    assert killed
    assert list(run.losses) == list(range(1, 6 * 6 + 1))
    assert run.result.num_videos == 16
    reports = [json.loads(line) for line in (run.folder / "progress.jsonl").read_text().splitlines()]
    notes = [report.get("notes", []) for report in reports]  # a sign of life has none
    failure = next(place for place, lines in enumerate(notes) if any("failed" in line for line in lines))
    steps = [report["progress"]["step"] for report in reports[failure:] if report.get("progress")]
    assert steps[0] > 12  # behind the second epoch's checkpoint, not at the beginning
    assert steps == list(range(steps[0], 6 * 6 + 1))


def train_worker_pids() -> Iterator[int]:
    """Ray Train's workers below this process (their parent is the raylet); others on the machine aren't ours."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            if command.startswith(b"ray::RayTrainWorker") and parent(parent(int(entry.name))) == os.getpid():
                yield int(entry.name)
        except OSError:
            continue


def parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])
