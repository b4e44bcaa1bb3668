"""What a run has cost: by the price of its nodes, or by those of GPUs and cores in its own configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from morphmlp.record import Metrics, RunSummary, Tags
from morphmlp.reporting.status import recorded


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What nodes cost."""

    hour: Callable[[int, int, int], float]
    """An hour's price of the nodes for GPUs, for cores that train, and for cores that decode on nodes of their own."""
    currency: str


@dataclass(frozen=True, kw_only=True)
class Bill:
    """The rates that hold for a run."""

    cuda: bool
    cpus_per_worker: int
    ingest_cpus: int
    """Of decode tasks, over all workers; 0 where the record doesn't say."""
    ingest_nodes: bool
    """These are on nodes of their own."""
    prices: Prices | None
    gpu_hour: float | None
    cpu_hour: float | None

    @classmethod
    def of(cls, run: RunSummary, prices: Prices | None) -> Self | None:
        """By node prices where there are any, else by the run's own; None without either."""
        gpu_hour, cpu_hour = (recorded.price(run.params, f"cluster.{kind}_hour_price") for kind in ("gpu", "cpu"))
        cuda = " x " in run.tags.get(Tags.TRAINED_ON, "")
        if prices is None and cpu_hour is None and (gpu_hour is None or not cuda):
            return None
        return cls(
            cuda=cuda,
            cpus_per_worker=recorded.whole(run.params, "cluster.cpus_per_worker") or 1,
            ingest_cpus=recorded.whole(run.tags, Tags.INGEST_CPUS) or 0,
            ingest_nodes=any(name.startswith("ingest.node_labels.") for name in run.params),
            prices=prices,
            gpu_hour=gpu_hour if cuda else None,
            cpu_hour=cpu_hour,
        )

    def hour(self, workers: int) -> float:
        """With so many workers."""
        cpus = workers * self.cpus_per_worker
        if self.prices is not None:
            return self.prices.hour(workers if self.cuda else 0, cpus, self.ingest_cpus if self.ingest_nodes else 0)
        return (self.gpu_hour or 0.0) * workers + (self.cpu_hour or 0.0) * (cpus + self.ingest_cpus)

    def of_run(self, run: RunSummary, held: Sequence[tuple[float, int]]) -> float | None:
        """By the seconds for which machines were held, with workers; without them by the hours of an ended run."""
        if self.prices is None and (known := recorded.number(run, Metrics.RUN_COST)) is not None:
            return known
        if held:
            return sum(held_s / 3600 * self.hour(workers) for held_s, workers in held)
        hours, workers = (recorded.number(run, key) for key in (Metrics.RUN_WORKER_HOURS, Metrics.TRAIN_WORKERS))
        if hours is None or not workers:
            return None
        return hours / workers * self.hour(int(workers))
