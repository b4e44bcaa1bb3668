"""The multi-view test on a real Ray."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from stored_scores import HEADER
from torch import Tensor

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.data.columns import PREDICTIONS
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.data.stream.decode_task import REQUEST_COLUMNS
from morphmlp.evaluation import ray_evaluator
from morphmlp.evaluation.ray_evaluator import ScorerPool, begin_scoring, scoring_dataset
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.tasks.factory import task_of

VIDEOS_AT_ONCE = 4


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ray_takes_the_pipeline_for_every_device(
    device: str, videos: Path, make_config: Callable[..., ExperimentConfig], placement: Placement
) -> None:
    """Nothing runs yet; but for GPUs Ray asks for more when the pipeline is made."""
    config = make_config()
    manifest = read_manifest(videos / "test.parquet")
    dataset = scoring_dataset(
        task_of(config),
        {},
        manifest,
        missing=np.ones(len(manifest), dtype=bool),
        pool=ScorerPool(num_workers=1, cpus_per_worker=1, device=device, node_labels={}),
        share=placement.ingest_share(config.ingest, pipelines=1),
        videos_at_once=VIDEOS_AT_ONCE,
    )
    assert "Scorer" in repr(dataset)


class Scoring:
    """Tests of one small network with six views of each of 16 videos."""

    def __init__(self, config: ExperimentConfig, placement: Placement) -> None:
        self.config, self.placement, self.task = config, placement, task_of(config)
        torch.manual_seed(0)
        self.network = self.task.network().eval()
        self.manifest = read_manifest(config.data.test, only=REQUEST_COLUMNS).available()

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    @contextmanager
    def store(self, folder: Path) -> Iterator[ScoreStore]:
        header = replace(
            HEADER, class_names=self.manifest.class_names, data_fingerprint=self.manifest.fingerprint(), num_clips=2
        )
        with ScoreStore.create(folder, header) as found:
            yield found

    def run(
        self,
        folder: Path,
        *,
        scorers: int = 1,
        progress: Callable[[int], None] = lambda done: None,
        manifest: Manifest | None = None,
    ) -> ray_evaluator.TestResult:
        with self.store(folder) as store:
            scoring = begin_scoring(
                self.task,
                self.weights,
                manifest or self.manifest,
                store=store,
                pool=ScorerPool(num_workers=scorers, cpus_per_worker=1, device="cpu", node_labels={}),
                share=self.placement.ingest_share(self.config.ingest, pipelines=1),
                videos_at_once=VIDEOS_AT_ONCE,
                broken_limit=0.5,
            )
            return scoring.collect(progress)


@pytest.fixture(scope="module")
def scoring(make_config: Callable[..., ExperimentConfig], placement: Placement) -> Scoring:
    return Scoring(make_config(), placement)


@pytest.fixture(scope="module")
def undisturbed(scoring: Scoring, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("undisturbed")
    scoring.run(folder)
    return ScoreStore.open(folder).read()


@pytest.mark.slow
def test_scores_are_those_of_a_loop_over_one_video_and_one_view_at_a_time(
    scoring: Scoring, undisturbed: pa.Table
) -> None:
    config, expected = scoring.config, []
    mean, std = (
        torch.tensor(values)[:, None, None, None] for values in (config.clip.pixel_mean, config.clip.pixel_std)
    )
    views = scoring.task.test_clips()
    for video in scoring.manifest.table.to_pylist():
        reader = decoder_by_name("pyav").open(video["path"])
        clips = torch.from_numpy(views.extract(reader).clips)
        logits = []
        for clip in clips:
            scaled = (clip.permute(3, 0, 1, 2).float() / 255 - mean) / std
            with torch.no_grad():
                logits.append(scoring.network(scaled[None])[0])
        expected.append((video["video_id"], video["label"], torch.stack(logits)))
    assert undisturbed.schema == PREDICTIONS
    for row, (name, label, logits) in zip(undisturbed.to_pylist(), expected, strict=True):
        assert (row["video_id"], row["label"]) == (name, label)
        torch.testing.assert_close(torch.tensor(row["view_logits"]), logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.tensor(row["logits"]), logits.sum(0), rtol=0, atol=6e-5)
        assert row["prediction"] == int(logits.sum(0).argmax())
    assert logits.shape == (6, 8)
    assert logits.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("scorers", [2, 3])
def test_any_number_of_scorers_gives_the_identical_table(
    scoring: Scoring, undisturbed: pa.Table, scorers: int, tmp_path: Path
) -> None:
    scoring.run(tmp_path, scorers=scorers)
    store = ScoreStore.open(tmp_path)
    assert store.read().equals(undisturbed)


@pytest.mark.slow
def test_a_scorer_that_is_killed_is_started_again_and_nothing_is_scored_twice(
    scoring: Scoring, undisturbed: pa.Table, tmp_path: Path
) -> None:
    def others_after_a_kill(folder: Path) -> set[str]:
        killed: list[str] = []

        def kill_the_scorer(done: int) -> None:
            if done and not killed:
                (name,) = set(ScoreStore.open(folder).read(["scorer"])["scorer"].to_pylist())
                killed.append(name)
                os.kill(int(name.rpartition(":")[2]), signal.SIGKILL)

        tested = scoring.run(folder, progress=kill_the_scorer)
        store = ScoreStore.open(folder)
        assert store.read().equals(undisturbed)
        assert pa.concat_tables(store.parts(["video_id"])).num_rows == tested.num_scored_now == 16
        return set(store.read(["scorer"])["scorer"].to_pylist()) - set(killed)

    # A scorer may be done before its first scores have been written and it is killed.
    others = next(filter(None, (others_after_a_kill(tmp_path / str(number)) for number in range(3))))
    assert len(others) == 1


@pytest.mark.slow
def test_a_test_continues_with_the_videos_that_its_store_lacks(
    scoring: Scoring, undisturbed: pa.Table, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(done: int) -> None:
        if done >= 2 * VIDEOS_AT_ONCE:
            raise StopError

    with pytest.raises(StopError):
        scoring.run(tmp_path, progress=stop)
    facts = ["video_id", "scorer", "cpu_s"]
    before = ScoreStore.open(tmp_path).read(facts)
    assert before.num_rows == 2 * VIDEOS_AT_ONCE
    tested = scoring.run(tmp_path)
    assert tested.num_scored_now == 16 - before.num_rows
    store = ScoreStore.open(tmp_path)
    assert store.read().equals(undisturbed)
    after = {row["video_id"]: row for row in store.read(facts).to_pylist()}
    assert all(after[row["video_id"]] == row for row in before.to_pylist())
    again = scoring.run(tmp_path)  # of a complete store nothing is started
    assert (again.num_scored_now, again.predictions.num_rows) == (0, 16)


@pytest.mark.slow
def test_a_broken_video_is_kept_with_its_reason_and_tried_again(
    scoring: Scoring, undisturbed: pa.Table, tmp_path: Path
) -> None:
    table, name = scoring.manifest.table, scoring.manifest.table["video_id"][5].as_py()
    paths = table["path"].to_pylist()
    paths[5] = str(tmp_path / "not-yet.mp4")
    moved = table.set_column(table.column_names.index("path"), "path", pa.array(paths, pa.string()))
    manifest = replace(scoring.manifest, table=moved)
    tested = scoring.run(tmp_path / "scores", manifest=manifest)
    store = ScoreStore.open(tmp_path / "scores")
    assert [video.video_id for video in tested.broken] == [name] == [video.video_id for video in store.broken()]
    assert "not-yet.mp4" in store.broken()[0].path
    (tmp_path / "not-yet.mp4").write_bytes(Path(table["path"][5].as_py()).read_bytes())
    tested = scoring.run(tmp_path / "scores", manifest=manifest)
    assert (tested.num_scored_now, tested.broken, store.open(tmp_path / "scores").broken()) == (1, [], [])
    found, known = ScoreStore.open(tmp_path / "scores").read(), undisturbed
    assert found["video_id"] == known["video_id"]
    logits = [np.array(one["logits"].to_pylist()) for one in (found, known)]
    np.testing.assert_allclose(*logits, rtol=0, atol=6e-5)  # this one went through the network alone
