"""The trials of a sweep in the order in which they run, kept in a file so that a sweep can go on after any stop.

Knows no Ray: whoever runs trials asks for the next one and tells when one has ended.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pydantic import JsonValue

from morphmlp.config import ExperimentConfig
from morphmlp.config.sweep import SweepConfig
from morphmlp.errors import CheckpointError
from morphmlp.line_file import LineFile, read_json_lines, remove_truncated_line
from morphmlp.tuning.run.trial_log import TrialLog, TrialView
from morphmlp.tuning.search.point_source import PointSource
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
    working_folder: str
    """Where relative paths of the experiment start."""
    max_minutes: float | None = None
    """The trial is stopped when it takes longer."""
    is_member: bool = False
    """Of a population: its experiment may change while it trains."""

    @property
    def log(self) -> Path:
        """What the trial tells, line by line."""
        return Path(self.config.cluster.storage) / self.run_name / "trial.jsonl"


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
        sweep: SweepConfig,
        source: PointSource,
        *,
        file: Path,
        make_point: Callable[[dict[str, JsonValue]], Point | ImpossiblePoint],
        make_job: Callable[[int, Point, int], TrialJob],
    ) -> None:
        """Take up the trials that the file lists, none at first.

        Args:
            sweep: The sweep.
            source: Where points come from.
            file: Lists the trials, one JSON line each.
            make_point: A point of these values.
            make_job: The job of a number, a point and a seed.

        Raises:
            CheckpointError: A trial of the file isn't possible any more.
        """
        self.entries: list[Entry] = []
        self._seeds, self._source, self._make_job = sweep.seeds, source, make_job
        self._told: set[str] = set()
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
            entry.view.take_in_quietly()
        self._waiting: Iterator[Entry] = iter([entry for entry in self.entries if entry.view.end is None])
        for entry in self.entries:
            self.note_end(entry)

    def next(self) -> Entry | None:
        """The next trial to run; None where there are no more for now."""
        while (entry := next(self._waiting, None)) is None:
            point = self._source.next()
            if point is None:
                return None
            known = {(entry.point.key, entry.seed) for entry in self.entries}
            fresh = [self._add(point, seed) for seed in self._seeds if (point.key, seed) not in known]
            for added in fresh:
                line = {"number": added.job.number, "values": dict(point.values), "seed": added.seed}
                self._lines.append(json.dumps(line))
            self._waiting = iter(fresh)
        return entry

    def point_of(self, number: int) -> str:
        """Key of a trial's point."""
        return self.entries[number - 1].point.key

    def note_end(self, entry: Entry) -> None:
        """Let the source know of a point all of whose trials have ended."""
        key = entry.point.key
        ends = [(other.view.end, other.view.epochs) for other in self.entries if other.point.key == key]
        if key in self._told or any(end is None for end, _ in ends):
            return
        self._told.add(key)
        scores = []
        for end, epochs in ends:
            if end is not None and end.result is not None:
                scores.append(float(str(end.result["score"])))
            elif end is not None and end.state in ("stopped", "timed_out") and epochs:
                scores.append(epochs[max(epochs)])
        self._source.tell(entry.point, mean(scores) if scores else None)

    def retry_failed(self) -> None:
        """Let trials that ended with an error run once more."""
        failed = [entry for entry in self.entries if entry.view.end is not None and entry.view.end.state == "failed"]
        for entry in failed:
            self._told.discard(entry.point.key)
            TrialLog(entry.view.path).again()
            entry.view.take_in()
        self._waiting = iter([entry for entry in self.entries if entry.view.end is None])

    def _add(self, point: Point, seed: int) -> Entry:
        job = self._make_job(len(self.entries) + 1, point, seed)
        replica = f" seed {seed}" if len(self._seeds) > 1 else ""
        view = TrialView(name=f"trial {job.number} {point.title}{replica}", path=job.log)
        entry = Entry(point=point, seed=seed, job=job, view=view)
        self.entries.append(entry)
        return entry


def seeded(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    """The experiment as the replica with this seed."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
