"""Every video gets a score or a reason: each split x what is wrong with a file x what is done about it, without Ray.

The pieces are those of a run: decode tasks in front of micro-batches (training, validation) or of a scorer (test).
"""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from coded_videos import CODINGS, write_video
from stored_scores import HEADER

from morphmlp.config import load_config
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainClips, ViewClips
from morphmlp.data.decoding import backends
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.quarantine import Quarantine, broken_limit
from morphmlp.data.stream.batches import ClipShape, assemble
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.errors import QuarantineLimitError
from morphmlp.evaluation import ray_evaluator
from morphmlp.evaluation.ray_evaluator import Scorer, ScorerPool
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.evaluation.validation import score_single_views
from morphmlp.models.network import Network
from morphmlp.tasks.classification import Classification
from morphmlp.tasks.factory import task_of
from morphmlp.training.loop.length import Length
from morphmlp.training.loop.loop import Recipe, Stepper
from morphmlp.training.loop.state import new_state
from morphmlp.training.loop.step_guard import StepGuard

CONFIG = load_config(Path(__file__).parent / "small_experiment.yaml", {"model.depths": [1, 1, 1, 1]})
TASK = task_of(CONFIG)
INPUT = (3, CONFIG.clip.num_frames, CONFIG.clip.crop_size, CONFIG.clip.crop_size)
CPU = torch.device("cpu")
USUAL, OF_THE_HANGING_ONE = Limits(timeout_s=20.0), Limits(timeout_s=1.0)
DECODER = "faulty_decoders:pyav_or_worse"
REASONS = {
    "missing": "no such file or directory",
    "empty": "the file is empty (0 bytes)",
    "text": "",
    "truncated": "",
    "large": "needs more memory than the",
    "crash": f"the {DECODER} decoder died",
    "hang": f"the {DECODER} decoder didn't come to an end within 1 s",
}
"""What is wrong with a video, and how its reason begins; empty: as FFmpeg says it."""
READ_BY_A_SECOND = ("large", "crash", "hang")
"""Those are whole files, at which only the first decoder fails."""
GOOD = ("good-0", "good-1")
POLICIES = {"skip": None, "fail": None, "retry_with": "pyav"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Good videos, and one of each kind between them."""
    folder = tmp_path_factory.mktemp("videos")
    good = write_video(folder / f"{GOOD[0]}.mp4", CODINGS["short groups"])
    for name in (*GOOD[1:], *READ_BY_A_SECOND):
        shutil.copy(good, folder / f"{name}.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("<html>404 Not Found</html>\n" * 20)
    content = good.read_bytes()
    (folder / "truncated.mp4").write_bytes(content[: len(content) * 2 // 5])
    ids = [GOOD[0], *REASONS, *GOOD[1:]]
    return manifest_from_rows(
        video_ids=ids,
        paths=[str(folder / f"{name}.mp4") for name in ids],
        labels=[place % 4 for place in range(len(ids))],
        splits=["test"] * len(ids),
        sizes_bytes=[1] * len(ids),
        class_names=["a", "b", "c", "d"],
    )


@pytest.fixture(scope="module")
def decoded(manifest):
    """`decoded(extractor, policy)` are the tables of decode tasks with one video each, made once."""
    known = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "data"))  # a child imports from where its parent does
        patch.setitem(backends._DECODERS, DECODER, lambda: SimpleNamespace(version="1"))

        def decode(extractor, policy):
            retry_with = POLICIES[policy]
            if (extractor, retry_with) not in known:
                tables = []
                for video_id, plan in zip(manifest.table["video_id"].to_pylist(), plans_of(manifest, 1), strict=True):
                    limits = OF_THE_HANGING_ONE if video_id == "hang" else USUAL
                    how = DecodePolicy(decoder=DECODER, retry_with=retry_with, limits=limits)
                    tables.append(DecodeTask(extractor=extractor, policy=how)(request_table(manifest, [plan])))
                known[extractor, retry_with] = tables
            return known[extractor, retry_with]

        yield decode
        for name in (DECODER, "pyav"):
            for limits in (USUAL, OF_THE_HANGING_ONE):
                isolated_videos(name, limits).close()


def plans_of(manifest, size):
    rows = torch.arange(len(manifest)).numpy()
    return [
        MicroBatchPlan(epoch=0, step=index, index=0, rows=rows[start : start + size])
        for index, start in enumerate(range(0, len(rows), size))
    ]


class Brightness(Network):
    """Answers from the mean brightness."""

    def __init__(self):
        super().__init__(input_shape=INPUT)

    def forward(self, clips):
        return clips.flatten(1).mean(dim=1, keepdim=True) * torch.arange(4.0)


class BrightnessTask(Classification):
    """Classification by that network."""

    def network(self):
        return Brightness()


def micro_batches(tables, manifest, stage, *, size, clips_per_video):
    shape = ClipShape(
        clips_per_video=clips_per_video, num_frames=CONFIG.clip.num_frames, crop_size=CONFIG.clip.crop_size
    )
    return assemble(iter(tables), iter(plans_of(manifest, size)), manifest=manifest, stage=stage, shape=shape)


def train(decoded, manifest, policy, size):
    """Videos that took part in steps, and broken ones."""
    extractor = TrainClips(clip=CONFIG.clip, augment=CONFIG.augment)
    repeats = extractor.clips_per_video
    batches = list(
        micro_batches(
            decoded(extractor, policy), manifest, "train", size=size, clips_per_video=extractor.clips_per_video
        )
    )
    plan = SimpleNamespace(seed=0, steps_per_epoch=len(batches), videos_per_step=size)
    plan.step_of = lambda cursor: cursor.step
    plan.advance = lambda cursor: replace(cursor, step=cursor.step + 1)
    recipe = Recipe(
        plan=plan,
        task=TASK,
        optim=CONFIG.optim,
        length=Length(steps_per_epoch=len(batches), whole=3),
        clips_per_video=repeats,
    )
    state = new_state(TASK, train=CONFIG.train, optim=CONFIG.optim, device=CPU)
    guard = StepGuard()
    stepper = Stepper(state, state.model.train(), recipe=recipe, device=CPU, guard=guard)
    steps = [stepper.take([batch]) for batch in batches]
    broken = [video for step in steps for video in step.broken]
    assert sum(int(step.totals.clips) for step in steps) == repeats * sum(len(batch.rows) for batch in batches)
    assert sum(int(step.totals.broken) for step in steps) == guard.broken_videos == len(broken)
    assert all(torch.isfinite(step.totals.pack()).all() and torch.isfinite(step.grad_norm) for step in steps)
    return [manifest.table["video_id"][row].as_py() for batch in batches for row in batch.rows], broken


def validate(decoded, manifest, policy, size):
    """Videos that were scored with one view, and broken ones."""
    extractor = ViewClips(clip=CONFIG.clip, views=SINGLE_VIEW)
    batches = list(micro_batches(decoded(extractor, policy), manifest, "val", size=size, clips_per_video=1))
    counts, broken = score_single_views(Brightness(), batches, task=TASK, device=CPU)
    scored = [manifest.table["video_id"][row].as_py() for batch in batches for row in batch.rows]
    assert counts.num_videos == len(scored)
    return scored, broken


def test(decoded, manifest, policy, size):
    """Videos in the predictions of a test, and broken ones."""
    extractor = ViewClips(clip=CONFIG.clip, views=CONFIG.test)
    pool = ScorerPool(num_workers=1, cpus_per_worker=1, device="cpu", node_labels={})
    scorer = Scorer(BrightnessTask(**vars(TASK)), {}, pool)
    videos = pa.concat_tables(decoded(extractor, policy))
    tables = [scorer(videos.slice(start, size)) for start in range(0, len(manifest), size)]
    done = []
    with TemporaryDirectory() as folder, ScoreStore.create(folder, HEADER) as store:
        tested = ray_evaluator._collected(tables, manifest, TASK, store=store, broken_limit=1.0, progress=done.append)
        assert [video.video_id for video in store.broken()] == [video.video_id for video in tested.broken]
    assert done[-1] == len(manifest)
    assert tested.retried == (len(READ_BY_A_SECOND) if POLICIES[policy] else 0)
    return tested.predictions["video_id"].to_pylist(), tested.broken


test.__test__ = False
SPLITS = {"train": train, "val": validate, "test": test}


@pytest.fixture(scope="module")
def outcome(decoded, manifest):
    """`outcome(split, policy, size)`: what becomes of each video, made once."""
    known = {}

    def find(split, policy, size):
        key = split, POLICIES[policy], size
        if key not in known:
            known[key] = SPLITS[split](decoded, manifest, policy, size)
        return known[key]

    return find


@pytest.mark.parametrize("size", [1, 3], ids=["alone", "next to others"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fault", REASONS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_video_is_scored_or_has_a_reason(outcome, split, fault, policy, size):
    scored, broken = outcome(split, policy, size)
    found = [video for video in broken if video.video_id == fault]
    if policy == "retry_with" and fault in READ_BY_A_SECOND:
        assert (scored.count(fault), found) == (1, [])
        return
    (reason,) = found
    assert fault not in scored
    first = reason.message.removeprefix(f"{DECODER}: ")
    assert first.startswith(REASONS[fault])
    assert first
    assert "\n" not in reason.message
    assert ("; pyav: " in reason.message) == (policy == "retry_with")
    assert (reason.stage, Path(reason.path).stem) == (split, fault)
    assert reason.size_bytes == (Path(reason.path).stat().st_size if fault != "missing" else None)


@pytest.mark.parametrize("fault", REASONS)
@pytest.mark.parametrize("split", SPLITS)
def test_where_nothing_may_be_left_out_a_broken_video_ends_the_run_by_its_name(outcome, manifest, split, fault):
    quarantine = Quarantine()
    quarantine.add(video for video in outcome(split, "fail", 1)[1] if video.video_id == fault)
    limit = broken_limit(replace(CONFIG.ingest, on_broken="fail", max_quarantined_share=1.0))
    with pytest.raises(QuarantineLimitError, match=f"{split} video {fault} can't be used .*ingest.on_broken"):
        quarantine.check_share(stage=split, num_videos=len(manifest), limit=limit)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("split", SPLITS)
def test_no_video_of_a_split_is_lost_or_counted_twice(outcome, manifest, split, policy, size):
    scored, broken = outcome(split, policy, size)
    assert set(GOOD) <= set(scored)
    assert Counter([*scored, *(video.video_id for video in broken)]) == Counter(manifest.table["video_id"].to_pylist())
