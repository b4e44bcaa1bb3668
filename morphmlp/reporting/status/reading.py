"""Gathers what is known of runs: the record first, then their folders and a cluster, where these are in reach."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from morphmlp.cluster.state import ClusterState
from morphmlp.errors import ClusterError, ConfigError
from morphmlp.record import MetricPoint, Metrics, RunSummary, Tags
from morphmlp.reporting.status.bill import Prices
from morphmlp.reporting.status.run_status import ENDED, RunStatus, Seen, run_status
from morphmlp.tracking import find_run, read_history, recent_runs
from morphmlp.tracking.address import without_login
from morphmlp.tracking.store import require_answer
from morphmlp.training.record.run_folder import RunFolder, lock_holder_gone

MOST_HISTORIES = 20
"""Running runs whose curves are read, those with the newest reports first; of others the latest numbers must do."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one look has found; the JSON of `--json`."""

    at_ms: int
    """Milliseconds since 1970."""
    store: str
    """Where the record is."""
    runs: tuple[RunStatus, ...]
    """Newest first; the one run that was named."""
    in_detail: bool
    cluster: ClusterState | None
    no_cluster: str
    """Why there is none."""
    away: str = ""
    """Why there is nothing newer."""


@dataclass
class StatusReader:
    """Looks at the record, again and again; curves that haven't grown since are kept."""

    uri: str
    name: str | None = None
    """One run to look at, by name; None: all that run, and others."""
    ended: int | None = 0
    """How many of the others, the newest; None: all."""
    prices: Prices | None = None
    address: str | None = None
    """Of a cluster to ask."""
    address_by: str = "RAY_ADDRESS"
    """The variable or option that the user gave it by."""
    _curves: dict[tuple[str, str], tuple[MetricPoint, list[MetricPoint]]] = field(default_factory=dict)

    def look(self) -> Found:
        """What the runs are doing now.

        Raises:
            ConfigError: No run has that name.
            TrackingError: The store can't be reached or used.
        """
        runs = recent_runs(self.uri, ended=self.ended) if self.name is None else [self._named(self.name)]
        cluster, no_cluster = self._cluster()
        now_ms = int(time.time() * 1000)
        newest = sorted((run for run in runs if run.status not in ENDED), key=_last_ms, reverse=True)
        curves = {run.run_id for run in newest[:MOST_HISTORIES]}
        return Found(
            at_ms=now_ms,
            store=without_login(self.uri),
            runs=tuple(self._status(run, cluster, curves=run.run_id in curves, now_ms=now_ms) for run in runs),
            in_detail=self.name is not None,
            cluster=cluster,
            no_cluster=no_cluster,
        )

    def _named(self, name: str) -> RunSummary:
        run = find_run(self.uri, run_name=name) if require_answer(self.uri) else None
        if run is None:
            raise ConfigError([f"--run {name}: the record has no run of that name; --all lists those that it has"])
        return run

    def _cluster(self) -> tuple[ClusterState | None, str]:
        if not self.address:
            return None, "no cluster was asked (--address, RAY_ADDRESS)"
        from morphmlp.cluster.ray_state import read_cluster  # noqa: PLC0415 (Ray, only where a cluster is named)

        try:
            return read_cluster(self.address, named=self.address_by), ""
        except ClusterError as error:
            return None, str(error)

    def _status(self, run: RunSummary, cluster: ClusterState | None, *, curves: bool, now_ms: int) -> RunStatus:
        in_detail = self.name is not None

        def curve(key: str, wanted: bool) -> Sequence[MetricPoint]:
            return self._curve(run, key) if wanted and key in run.latest else ()

        gone, moved_ms = (None, None) if run.status in ENDED else _in_its_folder(run)
        if gone is None and cluster is not None and run.status not in ENDED:
            gone = cluster.gone(run.tags.get(Tags.RAY_JOB, ""))
        seen = Seen(
            speeds=curve(Metrics.TRAIN_CLIPS_PER_S, curves or in_detail),
            starts=curve(Metrics.TRAIN_WORKERS, curves or in_detail),
            losses=curve(Metrics.TRAIN_LOSS, in_detail),
            driver_gone=gone,
            moved_ms=moved_ms,
        )
        return run_status(run, seen, now_ms=now_ms, prices=self.prices)

    def _curve(self, run: RunSummary, key: str) -> list[MetricPoint]:
        last, known = run.latest[key], self._curves.get((run.run_id, key))
        if known is None or known[0] != last:
            known = self._curves[run.run_id, key] = last, read_history(self.uri, run.run_id, [key])
        return known[1]


def _last_ms(run: RunSummary) -> int:
    """When it last said something of itself; what its machines do goes on while it hangs."""
    its_own = (point for key, point in run.latest.items() if not key.startswith(Metrics.SYSTEM))
    return max((point.timestamp_ms for point in its_own), default=run.start_ms)


def _in_its_folder(run: RunSummary) -> tuple[str | None, int | None]:
    """By what the run's command is known to be gone, and when its workers reported last; where the folder is here."""
    storage = run.params.get("cluster.storage", "")
    if not storage.startswith("/"):
        return None, None
    folder = RunFolder(Path(storage) / run.run_name)
    holder = lock_holder_gone(folder)
    try:
        moved_ms = int(folder.progress.stat().st_mtime * 1000)
    except OSError:
        moved_ms = None
    return None if holder is None else f"{holder or 'its process'} no longer holds {folder.lock}", moved_ms
