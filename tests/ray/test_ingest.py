"""The stream of clips on a real Ray: the same bytes however the work is cut, and one bad video costs itself alone."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.data import DataContext

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.data.clips.extract import TrainClips, TrainFrames
from morphmlp.data.manifest import Manifest, read_manifest, write_manifest
from morphmlp.data.stream import ray_dataset
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import Cursor, MicroBatchPlan, TrainPlan
from morphmlp.data.stream.ray_dataset import IngestShare, stream_micro_batches
from morphmlp.data.stream.ray_pace import Pace

MakeConfig = Callable[..., ExperimentConfig]
RECIPE = {
    "augment__repeats": 2,
    "augment__short_edge": 34,
    "augment__rand_augment": "rand-m7-n4-mstd0.5-inc1",
    "augment__erase": 0.25,
}


@pytest.fixture(scope="module")
def manifest(videos: Path) -> Manifest:
    return read_manifest(videos / "train.parquet").available()


@pytest.fixture(scope="module")
def share(make_config: MakeConfig, placement: Placement) -> IngestShare:
    return placement.ingest_share(make_config().ingest, pipelines=1)


def plan_of(manifest: Manifest) -> TrainPlan:
    return TrainPlan(num_videos=len(manifest), global_batch_size=16, micro_batch_size=4, seed=5)


def stream(
    manifest: Manifest,
    config: ExperimentConfig,
    share: IngestShare,
    *,
    cursor: Cursor,
    worker: int = 0,
    num_workers: int = 1,
) -> Iterator[MicroBatch]:
    extractor = TrainClips(clip=config.clip, augment=config.augment)
    plans = plan_of(manifest).micro_batches(cursor, worker=worker, num_workers=num_workers)
    return stream_micro_batches(manifest, plans, extractor, share, stage="train")


def digests(batches: Iterator[MicroBatch]) -> dict[tuple[int, int], str]:
    """What is in each micro-batch, by step and place in the step."""
    return {
        (batch.plan.step, batch.plan.index): hashlib.sha256(batch.clips.numpy().tobytes()).hexdigest()
        for batch in batches
    }


@pytest.fixture(scope="module")
def expected(manifest: Manifest, make_config: MakeConfig, share: IngestShare) -> dict[tuple[int, int], str]:
    return digests(stream(manifest, make_config(**RECIPE), share, cursor=Cursor(epoch=1)))


def test_every_micro_batch_of_the_epoch_is_there_and_no_two_are_alike(
    expected: dict[tuple[int, int], str], manifest: Manifest
) -> None:
    assert list(expected) == [(step, index) for step in range(len(manifest) // 16) for index in range(4)]
    assert len(set(expected.values())) == len(expected)


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_gets_the_same_clips(
    num_workers: int,
    expected: dict[tuple[int, int], str],
    manifest: Manifest,
    make_config: MakeConfig,
    share: IngestShare,
) -> None:
    found: dict[tuple[int, int], str] = {}
    for worker in range(num_workers):
        config = make_config(**RECIPE)
        found |= digests(
            stream(manifest, config, share, cursor=Cursor(epoch=1), worker=worker, num_workers=num_workers)
        )
    assert found == expected


@pytest.mark.parametrize(("videos_per_task", "segment_tasks"), [(4, 3), (40, 256)])
def test_the_size_of_tasks_and_of_executions_changes_no_clip(  # noqa: PLR0917 (fixtures)
    videos_per_task: int,
    segment_tasks: int,
    expected: dict[tuple[int, int], str],
    manifest: Manifest,
    make_config: MakeConfig,
    share: IngestShare,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_dataset, "SEGMENT_TASKS", segment_tasks)
    share = replace(share, videos_per_task=videos_per_task)
    assert digests(stream(manifest, make_config(**RECIPE), share, cursor=Cursor(epoch=1))) == expected


def test_a_stream_that_starts_again_at_its_cursor_goes_on_with_the_same_clips(
    expected: dict[tuple[int, int], str], manifest: Manifest, make_config: MakeConfig, share: IngestShare
) -> None:
    stopped = stream(manifest, make_config(**RECIPE), share, cursor=Cursor(epoch=1))
    for _ in range(6):
        next(stopped)
    stopped.close()  # type: ignore[attr-defined]  # a generator
    found = digests(stream(manifest, make_config(**RECIPE), share, cursor=Cursor(epoch=1, step=2)))
    assert found == {place: digest for place, digest in expected.items() if place[0] >= 2}


def test_clips_that_wait_for_training_hold_no_cpu_that_a_validation_needs(
    manifest: Manifest, make_config: MakeConfig, share: IngestShare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks whose clips Ray would divide into many data blocks, on all CPUs, and nobody reads them meanwhile."""
    monkeypatch.setattr(DataContext.get_current(), "target_max_block_size", 2**15)
    cpus = ray.cluster_resources()["CPU"]
    share = replace(share, cpus=int(cpus), videos_per_task=8, object_store_bytes=int(cpus) * 2**20)
    config = make_config(**RECIPE)
    extractor = TrainClips(clip=config.clip, augment=config.augment)
    epochs = (plan_of(manifest).micro_batches(Cursor(epoch=epoch), worker=0, num_workers=1) for epoch in range(4))
    training = stream_micro_batches(manifest, chain.from_iterable(epochs), extractor, share, stage="train")
    next(training)
    free_for_s, asked = 0, time.monotonic()
    while free_for_s < 4 and time.monotonic() - asked < 60:  # no CPU is taken once no more clips may wait
        time.sleep(1.0)
        free_for_s = free_for_s + 1 if ray.available_resources().get("CPU") == cpus else 0
    assert free_for_s == 4
    assert len(list(training)) == 24 * 4 - 1


def test_another_epoch_has_other_clips(
    expected: dict[tuple[int, int], str], manifest: Manifest, make_config: MakeConfig, share: IngestShare
) -> None:
    found = digests(stream(manifest, make_config(**RECIPE), share, cursor=Cursor(epoch=2)))
    assert not set(found.values()) & set(expected.values())


def test_augmenting_on_the_training_device_gives_the_same_clips(
    expected: dict[tuple[int, int], str], manifest: Manifest, make_config: MakeConfig, share: IngestShare
) -> None:
    config = make_config(**RECIPE, augment__on="worker")
    frames = TrainFrames(clip=config.clip, augment=config.augment)
    plans = plan_of(manifest).micro_batches(Cursor(epoch=1), worker=0, num_workers=1)
    assert digests(stream_micro_batches(manifest, plans, frames, share, stage="train")) == expected


@pytest.fixture(scope="module")
def with_a_text_file(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest with one video that is a text file."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.mp4").write_text("not a video")
    manifest = read_manifest(videos / "train.parquet")
    paths = manifest.table["path"].to_pylist()
    paths[7] = str(folder / "text.mp4")
    place = manifest.table.schema.get_field_index("path")
    table = manifest.table.set_column(place, manifest.table.schema.field("path"), [paths])
    write_manifest(Manifest(table, manifest.class_names), folder / "train.parquet")
    return read_manifest(folder / "train.parquet").available()


def test_a_broken_video_leaves_its_place_empty_and_all_others_as_they_are(
    expected: dict[tuple[int, int], str], with_a_text_file: Manifest, make_config: MakeConfig, share: IngestShare
) -> None:
    batches = list(stream(with_a_text_file, make_config(**RECIPE), share, cursor=Cursor(epoch=1)))
    [broken] = [video for batch in batches for video in batch.broken]
    assert (Path(broken.path).name, broken.error, broken.size_bytes) == ("text.mp4", "DecodeError", 11)
    assert broken.mtime is not None
    found = digests(iter(batches))
    different = [place for place in expected if found[place] != expected[place]]
    [batch] = [batch for batch in batches if (batch.plan.step, batch.plan.index) in different]
    assert len(batch.labels) == 2 * 3


def test_a_second_decoder_is_asked_where_the_first_one_fails(
    with_a_text_file: Manifest, make_config: MakeConfig, share: IngestShare
) -> None:
    policy = replace(share.policy, retry_with="decord")
    batches = stream(with_a_text_file, make_config(**RECIPE), replace(share, policy=policy), cursor=Cursor(epoch=1))
    [broken] = [video for batch in batches for video in batch.broken]
    assert broken.decoder == "decord"
    assert broken.message.startswith("pyav: not a readable video")
    assert "; decord: not a readable video" in broken.message


def test_the_plan_is_read_as_it_is_needed(
    manifest: Manifest, make_config: MakeConfig, share: IngestShare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_dataset, "SEGMENT_TASKS", 2)
    config = make_config(**RECIPE)
    read = []

    def plans() -> Iterator[MicroBatchPlan]:
        for epoch in range(10):
            for plan in plan_of(manifest).micro_batches(Cursor(epoch=epoch), worker=0, num_workers=1):
                read.append(plan)
                yield plan

    extractor = TrainClips(clip=config.clip, augment=config.augment)
    batches = stream_micro_batches(manifest, plans(), extractor, replace(share, videos_per_task=4), stage="train")
    next(batches)
    assert len(read) < 20  # of 240
    batches.close()  # type: ignore[attr-defined]  # a generator


@pytest.mark.slow
def test_memory_stays_flat_over_two_thousand_videos_with_bad_ones_among_them(
    with_a_text_file: Manifest, make_config: MakeConfig, share: IngestShare
) -> None:
    config = make_config()
    extractor = TrainClips(clip=config.clip, augment=config.augment)
    plan = plan_of(with_a_text_file)
    epochs = range(22)  # of 96 videos
    plans = (p for epoch in epochs for p in plan.micro_batches(Cursor(epoch=epoch), worker=0, num_workers=1))
    megabytes, broken = [], 0
    for batch in stream_micro_batches(with_a_text_file, plans, extractor, share, stage="train"):
        broken += len(batch.broken)
        if batch.plan.epoch in {5, 21} and (batch.plan.step, batch.plan.index) == (5, 3):
            megabytes.append(own_megabytes(decoding_processes()))
    assert broken == len(epochs)
    early, late = megabytes
    assert late < 1.05 * early + 20, f"{early:.0f} MB after 576 videos, {late:.0f} MB after 2112"


def decoding_processes() -> list[int]:
    """This process, and what decodes for it: Ray's decode workers and their children."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            names[int(entry.name)] = (entry / "cmdline").read_bytes()
            status = (entry / "status").read_text()
        except OSError:
            continue
        parents[int(entry.name)] = int(
            next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1]
        )

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    wanted = (b"ray::IDLE", b"ray::MapBatches", b"morphmlp.data.decoding.isolation.child")
    return [os.getpid(), *(pid for pid in parents if is_ours(pid) and any(name in names[pid] for name in wanted))]


def own_megabytes(pids: list[int]) -> float:
    """Memory of these processes that is theirs alone, MB: shared pages of the object store come and go."""
    total = 0
    for pid in pids:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        total += (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
    return total / 2**20


@pytest.mark.slow
def test_while_clips_wait_for_training_the_scheduling_loop_rests(
    manifest: Manifest, make_config: MakeConfig, share: IngestShare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpaced it goes round some hundred times a second, in the process that trains."""
    steps: list[float] = []
    keep_pace = Pace.on_execution_step

    def counted(self: Pace, executor: object) -> None:
        steps.append(time.monotonic())
        keep_pace(self, executor)  # type: ignore[arg-type]

    monkeypatch.setattr(Pace, "on_execution_step", counted)
    many = Manifest(pa.concat_tables([manifest.table] * 10), manifest.class_names)
    batches = stream(many, make_config(**RECIPE), share, cursor=Cursor(epoch=2))
    next(batches)
    time.sleep(2.0)  # all that may be decoded ahead is
    began = len(steps)
    time.sleep(2.0)
    assert 0 < len(steps) - began <= 50
    assert len(list(batches)) == 4 * (len(many) // 16) - 1
