"""From the workers' reports to the record: runs in Ray Train's controller, on the driver's node.

MLflow has this one writer during training; the workers need neither its address nor credentials.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ray.train import Checkpoint, UserCallback

from morphmlp.cluster.failure_reasons import failure_text
from morphmlp.data.quarantine import BrokenVideo, Quarantine, broken_from_plain, earlier_broken
from morphmlp.line_file import LineFile, read_json_lines
from morphmlp.training.record.report import Report, broken_of, points_of, window_of
from morphmlp.training.record.run_events import RunEvents, record_event
from morphmlp.training.record.run_folder import RunFolder

if TYPE_CHECKING:
    from morphmlp.tracking import BufferedWriter, RunWriter


class RecordReports(UserCallback):
    """Writes points to MLflow, broken videos to the quarantine, events, and a progress line for the driver.

    Reports pace the training, so nothing here waits for MLflow, and a full disk doesn't end the run: what can't be
    written goes out with a later report. What MLflow hasn't got when training ends is in `RunFolder.record_waiting`.
    """

    def __init__(self, writer: "RunWriter", folder: RunFolder, *, manifests: Sequence[str]) -> None:
        """Travel to the controller with addresses only."""
        self._uri, self._run_id, self._folder, self._manifests = writer.uri, writer.run_id, folder, manifests
        self._failure: str | None = None
        self._begun = False
        self._quarantine: Quarantine | None = None
        self._quarantine_fault: str | None = None

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Take in one report of every worker."""
        del run_context, checkpoint
        reports = [cast(Report, report) for report in metrics]
        if not self._begun:
            self._begun = True
            self._keep_broken(map(broken_from_plain, read_json_lines(self._folder.broken_found)))
        for report in self._lacking(reports[0].get("earlier", [])):
            self._take_in([report])
        self._take_in(reports)

    def _lacking(self, carried: Sequence[str]) -> list[Report]:
        """Those of a checkpoint's reports that aren't in the record: a line of the progress file is written last."""
        if not carried:
            return []
        known = {line.get("name") for line in read_json_lines(self._folder.progress)}
        return [report for report in map(json.loads, carried) if report["name"] not in known]

    def _take_in(self, reports: list[Report]) -> None:
        points = [point for report in reports for point in points_of(report)]
        self._record.metrics(points)
        if facts := reports[0].get("facts"):
            self._record.tags(facts)
        self._keep_broken(video for report in reports for video in broken_of(report))
        self._inform_driver(
            {
                "name": reports[0].get("name"),
                "progress": reports[0].get("progress"),
                "window": window_of(reports),
                "notes": reports[0].get("notes", []),
                "points": reports[0].get("points", []),
                "stopped": reports[0].get("stopped"),
            }
        )

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Note that workers failed, once; the driver starts others from the last checkpoint."""
        del run_context
        text = failure_text(worker_exceptions)
        if text == self._failure:  # while it waits for a node to go, Ray Train reports it again and again
            return
        self._failure = text
        self._note_event(text)
        self._inform_driver({"notes": [text]})

    @cached_property
    def _record(self) -> "BufferedWriter":
        from morphmlp.tracking import BufferedWriter, RunWriter  # noqa: PLC0415 (MLflow, next to the workers' start)

        progress = self._progress  # made here, before another thread uses it
        return BufferedWriter(
            RunWriter(self._uri, self._run_id),
            self._folder.record_waiting,
            log=lambda note: progress.append(json.dumps({"notes": [note]})),
        )

    @cached_property
    def _events(self) -> RunEvents:
        return RunEvents(self._folder.events)

    @cached_property
    def _progress(self) -> LineFile:
        return LineFile(self._folder.progress)

    def _inform_driver(self, line: Mapping[str, object]) -> None:
        self._progress.append(json.dumps(line))

    def _note_event(self, text: str) -> None:
        record_event(self._record, self._events.add(text))

    def _keep_broken(self, videos: Iterable[BrokenVideo]) -> None:
        broken = list(videos)
        if not broken and self._quarantine_fault is None:
            return
        if self._quarantine is None:
            self._quarantine = Quarantine.read(self._folder.quarantine)
        self._quarantine.add(broken)
        known = [video for manifest in self._manifests for video in earlier_broken(manifest)]
        try:
            self._quarantine.write(self._folder.quarantine, run=self._folder.root.name, earlier=known)
        except OSError as error:
            fault = f"{self._folder.quarantine} can't be written now ({error}); training continues"
            if fault != self._quarantine_fault:
                self._quarantine_fault = fault
                self._inform_driver({"notes": [fault]})
        else:
            self._quarantine_fault = None
