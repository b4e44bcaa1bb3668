"""What scorers tell of their work. Nothing of Ray is started."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from stored_scores import HEADER

from morphmlp.config import load_config
from morphmlp.data.columns import DECODED
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.errors import EvaluationError
from morphmlp.evaluation import ray_evaluator
from morphmlp.evaluation.ray_evaluator import SCORER_START, Scorer, ScorerPool, check_coverage
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.models.network import Network
from morphmlp.tasks.classification import Classification
from morphmlp.tasks.factory import task_of

CONFIG = load_config(Path(__file__).parents[1] / "small_experiment.yaml")
VIEWS = CONFIG.test.num_clips * CONFIG.test.num_crops
CLIP_BYTES = CONFIG.clip.num_frames * CONFIG.clip.crop_size**2 * 3
INPUT = (3, CONFIG.clip.num_frames, CONFIG.clip.crop_size, CONFIG.clip.crop_size)
VIDEOS = 4
TASK = task_of(CONFIG)
DECODE_CPU_S = 0.5
"""Of each video."""
DONE: list[int] = []


class Constant(Network):
    def __init__(self):
        super().__init__(input_shape=INPUT)

    def forward(self, clips):
        return torch.zeros(len(clips), 4)


class ConstantTask(Classification):
    """Classification by that network."""

    def network(self):
        return Constant()


def decoded(rows, *, broken=()):
    """What a decode task makes of these rows."""
    facts = {"height": 32, "width": 32, "concealed": 0, "retried": False, "cpu_s": DECODE_CPU_S, "error": ""}
    facts |= {
        "label": 0,
        "maps": b"",
        "message": "",
        "decoder": "",
        "decoder_version": "",
        "size_bytes": None,
        "mtime": None,
    }
    columns = {name: [value] * len(rows) for name, value in facts.items()}
    clip = bytes(VIEWS * CLIP_BYTES)
    columns |= {"row": rows, "clips": [b"" if row in broken else clip for row in rows]}
    columns |= {"error": ["DecodeError" if row in broken else "" for row in rows]}
    return pa.table({name: pa.array(columns[name], DECODED.field(name).type) for name in DECODED.names}, schema=DECODED)


@pytest.fixture
def scorer(monkeypatch):
    """A scorer in a process that has used 10 s before, and uses 1 s for each table."""
    spent = iter([10.0 + table for table in range(VIDEOS)])
    monkeypatch.setattr(ray_evaluator, "time", SimpleNamespace(process_time=lambda: next(spent), time=lambda: 0.0))
    pool = ScorerPool(num_workers=1, cpus_per_worker=torch.get_num_threads(), device="cpu", node_labels={})
    return Scorer(ConstantTask(**vars(TASK)), {}, pool)


def test_a_scorers_cpu_time_is_told_once_and_from_its_start(scorer):
    told = [pc.sum(scorer(decoded(rows))["scorer_cpu_s"]).as_py() for rows in ([0, 1], [2], [3])]
    assert told == [10.0, 1.0, 1.0]


def test_time_spent_on_no_rows_is_told_with_the_next_ones(scorer):
    told = [pc.sum(scorer(decoded(rows))["scorer_cpu_s"], min_count=0).as_py() for rows in ([0], [], [1])]
    assert told == [10.0, 0.0, 2.0]


def test_a_scorer_says_when_it_had_come_to_its_first_clips(monkeypatch):
    times = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(ray_evaluator, "time", SimpleNamespace(process_time=lambda: 0.0, time=lambda: next(times)))
    pool = ScorerPool(num_workers=1, cpus_per_worker=torch.get_num_threads(), device="cpu", node_labels={})
    scorer = Scorer(ConstantTask(**vars(TASK)), {}, pool)
    told = [scorer(decoded(rows))[SCORER_START].to_pylist() for rows in ([0, 1], [2])]
    assert told == [[[1.0, 2.0, 3.0]] * 2, [[1.0, 2.0, 3.0]]]


@pytest.fixture
def manifest():
    return manifest_from_rows(
        video_ids=[f"v{row}" for row in range(VIDEOS)],
        paths=[f"v{row}.mp4" for row in range(VIDEOS)],
        labels=[0] * VIDEOS,
        splits=["test"] * VIDEOS,
        sizes_bytes=[1] * VIDEOS,
        class_names=["a", "b", "c", "d"],
    )


@pytest.fixture
def store(tmp_path):
    with ScoreStore.create(tmp_path / "scores", HEADER) as found:
        yield found


def test_a_tests_cpu_time_is_that_of_decoding_and_scoring(scorer, manifest, store):
    tables = [scorer(decoded(rows)) for rows in ([0, 1], [2, 3])]
    tested = ray_evaluator._collected(tables, manifest, TASK, store=store, broken_limit=0.0, progress=DONE.append)
    assert tested.cpu_s == VIDEOS * DECODE_CPU_S + 10.0 + 1.0


@pytest.mark.parametrize(("limit", "looked_at"), [(0.0, [0, 1]), (0.25, [0, 1, 2]), (0.5, [0, 1, 2, 3])])
def test_a_test_ends_as_soon_as_more_videos_are_broken_than_may_be(scorer, manifest, store, limit, looked_at):
    tables = (scorer(decoded(rows, broken=[1, 2])) for rows in ([0], [1], [2], [3]))
    tested = ray_evaluator._collected(tables, manifest, TASK, store=store, broken_limit=limit, progress=DONE.append)
    found = [*tested.predictions["video_id"].to_pylist(), *(video.video_id for video in tested.broken)]
    assert sorted(found) == [f"v{row}" for row in looked_at]


def test_a_video_that_a_test_never_met_is_missed_although_others_are_broken(scorer, manifest, store):
    tables = [scorer(decoded(rows, broken=[1])) for rows in ([0], [1], [2])]
    with pytest.raises(EvaluationError, match=r"of 4 videos 1 were neither scored nor quarantined \(v3\)"):
        ray_evaluator._collected(tables, manifest, TASK, store=store, broken_limit=0.5, progress=DONE.append)


@pytest.mark.parametrize(
    ("scored", "broken"),
    [
        (["v0", "v1", "v2", "v3"], []),
        (["v3", "v1", "v0", "v2"], []),
        (["v0", "v2"], ["v1", "v3"]),
        ([], ["v0", "v1", "v2", "v3"]),
    ],
)
def test_videos_that_are_scored_once_or_quarantined_cover_the_manifest(manifest, scored, broken):
    check_coverage(manifest, scored=scored, broken=broken)


@pytest.mark.parametrize(
    ("scored", "broken", "message"),
    [
        (["v0", "v1", "v2"], [], r"of 4 videos 1 were neither scored nor quarantined \(v3\) and 0 were scored twice"),
        ([], [], r"of 4 videos 4 were neither scored nor quarantined \(v0, v1, v2\) and 0"),
        (
            ["v0", "v1", "v2", "v3", "v3"],
            [],
            "of 4 videos 0 were neither scored nor quarantined and 1 were scored twice",
        ),
        (
            ["v0", "v0", "v1"],
            ["v2"],
            r"of 4 videos 1 were neither scored nor quarantined \(v3\) and 1 were scored twice",
        ),
    ],
)
def test_missing_and_doubled_videos_are_refused_with_their_numbers(manifest, scored, broken, message):
    with pytest.raises(EvaluationError, match=message):
        check_coverage(manifest, scored=scored, broken=broken)
