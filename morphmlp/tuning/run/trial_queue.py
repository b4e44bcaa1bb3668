"""The trials of a sweep in the order in which they run, kept in a file from which a stopped sweep is resumed."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pydantic import JsonValue

from morphmlp.config import ExperimentConfig
from morphmlp.config.sweep import SweepConfig
from morphmlp.errors import CheckpointError
from morphmlp.line_file import LineFile, read_json_lines, remove_truncated_line
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.trial_log import TrialLog, TrialView
from morphmlp.tuning.run.trials import TrialEnd
from morphmlp.tuning.search.scheduler import PointSource
from morphmlp.tuning.space.space import ImpossiblePoint, Point


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """Everything that a trial's process needs; plain values, so that it travels."""

    number: int
    """From 1, in the order of the sweep."""
    config: ExperimentConfig
    run_name: str
    parent_run_id: str
    point: dict[str, JsonValue]
    uri: str
    """The tracking store."""
    source: Mapping[str, str]
    """Tags of the sweep's command (`source_tags`), which a trial's process doesn't know."""
    working_folder: str
    """Where relative paths of the experiment start."""
    max_minutes: float | None = None
    """The trial is stopped when it takes longer."""
    is_member: bool = False
    """Of a population: its experiment may change while it trains."""

    @property
    def folder(self) -> RunFolder:
        """The trial's files."""
        return RunFolder(Path(self.config.cluster.storage) / self.run_name)

    @property
    def log(self) -> Path:
        """What the trial reports, line by line."""
        return self.folder.root / "trial.jsonl"


def make_job(
    number: int,
    point: Point,
    seed: int,
    *,
    sweep: SweepConfig,
    folder: SweepFolder,
    parent_run_id: str,
    uri: str,
    source: Mapping[str, str],
) -> TrialJob:
    """The job of a trial: its point's experiment with this seed, and its files inside the sweep's folder.

    Nothing else that it computes changes.
    """
    config, ingest = point.config, point.config.ingest
    if sweep.share_clips and ingest.clip_cache is None:
        clips = str(folder.clips.absolute())
        ingest = dataclasses.replace(ingest, clip_cache=clips, clip_cache_gb=sweep.clip_cache_gb)
    replica = f"-seed{seed}" if len(sweep.seeds) > 1 else ""
    return TrialJob(
        number=number,
        config=dataclasses.replace(
            config,
            train=dataclasses.replace(config.train, seed=seed),
            cluster=dataclasses.replace(config.cluster, storage=str(folder.root)),
            ingest=ingest,
        ),
        run_name=f"{folder.root.name}-{number:03d}-{point.label}{replica}",
        parent_run_id=parent_run_id,
        point=dict(point.values),
        uri=uri,
        source=source,
        working_folder=str(Path.cwd()),
        max_minutes=sweep.max_trial_minutes,
        is_member=sweep.search.kind == "population",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One trial: a point with a seed, its job, and what is known of it."""

    point: Point
    seed: int
    job: TrialJob
    view: TrialView


class TrialQueue:
    """All trials of a sweep so far, and the next ones."""

    def __init__(
        self,
        source: PointSource,
        *,
        seeds: Sequence[int],
        file: Path,
        make_point: Callable[[dict[str, JsonValue]], Point | ImpossiblePoint],
        make_job: Callable[[int, Point, int], TrialJob],
    ) -> None:
        """Continue with the trials that the file lists, none at first.

        The file has one JSON line for each trial; every point runs once with each of the seeds.

        Raises:
            CheckpointError: A trial of the file isn't possible any more.
        """
        self.entries: list[Entry] = []
        self._seeds, self._source, self._make_job = tuple(seeds), source, make_job
        self._judged: set[str] = set()  # keys of points whose score the source knows
        remove_truncated_line(file)
        self._lines = LineFile(file)
        for known in read_json_lines(file):
            if known["number"] != len(self.entries) + 1:
                raise CheckpointError(f"{file}: lists trial {known['number']} where {len(self.entries) + 1} is due")
            point = make_point(known["values"])
            if isinstance(point, ImpossiblePoint):
                raise CheckpointError(f"{file}: trial {known['number']} isn't possible any more: {point.reasons[0]}")
            self._add(point, known["seed"])
        for entry in self.entries:
            entry.view.read_silently()
        self._waiting: Iterator[Entry] = iter(list(self.entries))
        self._known_ends = {entry.job.number for entry in self.entries if entry.view.end is not None}
        for entry in self.entries:
            self.note_end(entry)

    def next(self) -> Entry | None:
        """The next trial to run; None where there are no more for now."""
        # Asked now, not when the queue was read: the replay of decisions ends trials in between.
        while (entry := next((waiting for waiting in self._waiting if waiting.view.end is None), None)) is None:
            if (point := self._source.next()) is None:
                return None
            known = {(entry.point.key, entry.seed) for entry in self.entries}
            fresh = [self._add(point, seed) for seed in self._seeds if (point.key, seed) not in known]
            for added in fresh:
                line = {"number": added.job.number, "values": dict(point.values), "seed": added.seed}
                self._lines.append(json.dumps(line))
            self._waiting = iter(fresh)
        return entry

    def end(self, entry: Entry, end: TrialEnd) -> None:
        """End a trial whose process didn't, or never started."""
        TrialLog(entry.view.path).ended(end)
        self.note_end(entry)

    def note_end(self, entry: Entry) -> None:
        """Read a trial's end, and let the source know of a point all of whose trials have ended."""
        entry.view.read()
        key = entry.point.key
        ends = [(other.view.end, other.view.validations) for other in self.entries if other.point.key == key]
        if key in self._judged or any(end is None for end, _ in ends):
            return
        self._judged.add(key)
        scores = []
        for end, validations in ends:
            if end is not None and end.score is not None:
                scores.append(end.score)
            elif end is not None and end.state in ("stopped", "timed_out") and validations:
                scores.append(validations[max(validations)])
        self._source.tell(entry.point, mean(scores) if scores else None)

    def newly_ended(self) -> list[Entry]:
        """Trials that have ended since this was last asked, or since the sweep was started or resumed."""
        fresh = [e for e in self.entries if e.view.end is not None and e.job.number not in self._known_ends]
        self._known_ends |= {entry.job.number for entry in fresh}
        return fresh

    def retry_failed(self) -> None:
        """Let trials that ended with an error run once more."""
        for entry in self.entries:
            if entry.view.end is not None and entry.view.end.state == "failed":
                self._judged.discard(entry.point.key)
                self._known_ends.discard(entry.job.number)
                TrialLog(entry.view.path).again()
                entry.view.read()
        self._waiting = iter([entry for entry in self.entries if entry.view.end is None])

    def _add(self, point: Point, seed: int) -> Entry:
        job = self._make_job(len(self.entries) + 1, point, seed)
        replica = f" seed {seed}" if len(self._seeds) > 1 else ""
        view = TrialView(name=f"trial {job.number} {point.title}{replica}", path=job.log)
        entry = Entry(point=point, seed=seed, job=job, view=view)
        self.entries.append(entry)
        return entry
