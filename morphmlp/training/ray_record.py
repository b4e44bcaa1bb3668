"""From the workers' reports to the record: runs in Ray Train's controller, on the driver's node.

MLflow has this one writer during training; the workers need neither its address nor credentials.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from ray.train import Checkpoint, UserCallback

from morphmlp.data.quarantine import Quarantine, earlier_broken
from morphmlp.record import Metrics
from morphmlp.tracking import RunWriter
from morphmlp.training.report import Report, broken_of, points_of
from morphmlp.training.run_folder import RunFolder


class RecordReports(UserCallback):
    """Writes points to MLflow, broken videos to the quarantine, and a progress line for the driver."""

    def __init__(self, writer: RunWriter, folder: RunFolder, *, manifests: Sequence[str]) -> None:
        """Travel to the controller with addresses only."""
        self._writer = writer
        self._folder = folder
        self._manifests = manifests
        self._quarantine: Quarantine | None = None

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Take in one report of every worker."""
        del run_context
        reports = [cast(Report, report) for report in metrics]
        points = [point for report in reports for point in points_of(report)]
        last = max(points, key=lambda point: point.step, default=None)
        if last is not None and (concealed := sum(report.get("concealed", 0) for report in reports)):
            points.append(replace(last, key=Metrics.TRAIN_CONCEALED, value=concealed))
        if last is not None and (retried := sum(report.get("retried", 0) for report in reports)):
            points.append(replace(last, key=Metrics.TRAIN_RETRIED, value=retried))
        self._writer.metrics(points)
        if facts := reports[0].get("facts"):
            self._writer.tags(facts)
        self._keep_broken(reports)
        line = {
            "progress": reports[0].get("progress"),
            "notes": reports[0].get("notes", []),
            "points": reports[0].get("points", []),
            "stopped": reports[0].get("stopped"),
            "checkpoint": checkpoint.path if checkpoint is not None else None,
        }
        with self._folder.progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Tell the driver that workers failed; Ray Train restarts them from the last checkpoint."""
        del run_context
        reasons = sorted({str(error).strip().splitlines()[-1][:200] for error in worker_exceptions.values()})
        note = f"worker {', '.join(map(str, sorted(worker_exceptions)))} failed: {'; '.join(reasons)}"
        with self._folder.progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"notes": [note]}) + "\n")

    def _keep_broken(self, reports: list[Report]) -> None:
        broken = [video for report in reports for video in broken_of(report)]
        if not broken:
            return
        if self._quarantine is None:
            self._quarantine = Quarantine.read(self._folder.quarantine)
        self._quarantine.add(broken)
        known = [video for manifest in self._manifests for video in earlier_broken(manifest)]
        self._quarantine.write(self._folder.quarantine, run=self._folder.root.name, earlier=known)
