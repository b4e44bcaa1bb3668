"""Something done with every video of a manifest, over the cluster: resumable, and past every broken one.

Ray Data tasks take small tables of videos; results reach the driver as they are done and are on disk within a second.
Only a segment of the videos is in Ray's hands at a time, so that what the driver holds doesn't grow with their number.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from morphmlp.data.quarantine import file_state
from morphmlp.errors import ManifestError
from morphmlp.preparation.work_folder import WorkFolder
from morphmlp.progress import Progress

_KEEP_EVERY_S = 1.0
"""Results that a kill of the driver loses are those of so many seconds at most."""
_TASK_MEMORY_BYTES = 512 * 2**20
"""What a task may need, generously: the frames that a decoder and an encoder hold of one video."""
_SEGMENT_ROWS = 4096
_SEGMENT_ROWS_PER_CPU = 64
"""A segment ends when its last video does: each CPU has many turns in it, so that little of the cluster waits then."""
_MOST_SEGMENT_ROWS = 65_536
_TASKS_PER_CPU = 4
_MOST_VIDEOS_PER_TASK = 8


class VideoTask(Protocol):
    """What is done with one video. Travels to the cluster's processes."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of its results, those of `morphmlp.preparation.work_folder.RESULT` first."""

    def __call__(self, video: Mapping[str, object]) -> Mapping[str, object]:
        """Do it with the video of these cells of a manifest; gives cells of `schema` (those left out are null).

        Raises:
            ManifestError: Nothing can be written any more, which is no video's fault; it ends the job.
            Exception: Whatever is wrong with this video; it becomes a row with its class and text.
        """


@dataclass(frozen=True, kw_only=True)
class _TaskOfVideos:
    """Does a task with the videos of one data block.

    Columns in: those of the manifest. Columns out: `task.schema`.
    """

    task: VideoTask

    def __call__(self, videos: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._one(video) for video in videos.to_pylist()], schema=self.task.schema)

    def _one(self, video: Mapping[str, object]) -> dict[str, object]:
        size, mtime = file_state(str(video["path"]))  # before it's read: a change from now on is one
        row: dict[str, object] = {
            "video_id": video["video_id"],
            "path": video["path"],
            "size_bytes": size,
            "mtime": mtime,
            "error": "",
            "message": "",
        }
        try:
            row |= self.task(video)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with it, it costs this video alone)
            row |= {"error": type(error).__name__, "message": " ".join(str(error).split()) or type(error).__name__}
        return row


@dataclass(frozen=True, kw_only=True)
class TaskResources:
    """What one task takes next to a CPU."""

    memory_bytes: int = _TASK_MEMORY_BYTES
    num_gpus: float = 0.0


_USUAL = TaskResources()


def do_with_every_video(
    videos: pa.Table,
    task: VideoTask,
    work: WorkFolder,
    *,
    title: str,
    progress: Progress,
    resources: TaskResources = _USUAL,
) -> pa.Table:
    """Do a task with all videos that aren't finished, in the running Ray session; the results of all, in their order.

    Videos are rows of a manifest, with `video_id`, `path` and what else the task reads; the work folder must be open.

    Raises:
        ManifestError: Raised by the task; what is finished by then is kept.
        KeyboardInterrupt: Ctrl-C; likewise.
    """
    progress.phase(f"{title}: looking for finished videos", total=videos.num_rows, unit="videos")
    rows = np.flatnonzero(~work.finished(videos))
    before = videos.num_rows - len(rows)
    progress.update(videos.num_rows, f"{before} are finished" if before else "")
    progress.phase(title, total=len(rows), unit="videos")
    meter = _Meter(progress, total=len(rows))
    keeper = _Keeper(work)
    start = 0
    try:
        while start < len(rows):
            cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]  # it may grow
            size = min(max(_SEGMENT_ROWS, _SEGMENT_ROWS_PER_CPU * cpus), _MOST_SEGMENT_ROWS)
            segment = rows[start : start + size]
            for results in _done(videos.take(pa.array(segment)).combine_chunks(), task, resources, cpus=cpus):
                good = results.filter(pc.not_equal(results["error"], ManifestError.__name__))
                keeper.take(good)
                meter.add(good)
                if good.num_rows < results.num_rows:
                    stopping = results.filter(pc.equal(results["error"], ManifestError.__name__))
                    raise ManifestError(str(stopping["message"][0]))
            keeper.keep()
            work.compact()
            start += len(segment)
    finally:
        keeper.keep()
    return work.results(videos["video_id"])


def videos_per_task(videos: int, cpus: int) -> int:
    """Videos of one task: few, so that results come soon and all CPUs have work to the end."""
    return min(max(videos // (_TASKS_PER_CPU * cpus), 1), _MOST_VIDEOS_PER_TASK)


def _done(videos: pa.Table, task: VideoTask, resources: TaskResources, *, cpus: int) -> Iterator[pa.Table]:
    """Results of one segment's videos, in the order in which they are done."""
    size = videos_per_task(videos.num_rows, cpus)
    tables = [videos.slice(start, size) for start in range(0, videos.num_rows, size)]
    dataset = ray.data.from_arrow(tables).map_batches(
        _TaskOfVideos(task=task),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,  # one thread of decoding or encoding
        num_gpus=resources.num_gpus,
        memory=resources.memory_bytes,
    )
    context = dataset.context
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    context.execution_options.verbose_progress = False
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield cast(pa.Table, batch)


class _Keeper:
    """Writes results a part at a time: at once would be too many files, at the end too late."""

    def __init__(self, work: WorkFolder) -> None:
        self._work = work
        self._waiting: list[pa.Table] = []
        self._kept = time.monotonic()

    def take(self, results: pa.Table) -> None:
        self._waiting.append(results)
        if time.monotonic() - self._kept >= _KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._work.append(waiting)
        self._kept = time.monotonic()


class _Meter:
    """Reports the progress, with the rate of this run and the time that is left at it."""

    def __init__(self, progress: Progress, *, total: int) -> None:
        self._progress, self._total = progress, total
        self._began = time.monotonic()
        self._done = self._broken = 0

    def add(self, results: pa.Table) -> None:
        self._done += results.num_rows
        self._broken += results.num_rows - (pc.sum(pc.equal(results["error"], "")).as_py() or 0)
        if not self._done:
            return
        rate = self._done / max(time.monotonic() - self._began, 1e-3)
        note = f"{rate:.1f} videos/s, {_duration_text((self._total - self._done) / rate)} left"
        self._progress.update(self._done, f"{note}, {self._broken} broken" if self._broken else note)


def _duration_text(seconds: float) -> str:
    """A time in its two greatest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
