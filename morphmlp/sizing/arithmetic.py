"""The plain calculation: cores, nodes, memory, network, hours and cost, from measured costs and mean rates."""

import math
from dataclasses import dataclass, replace

from morphmlp.errors import ConfigError
from morphmlp.sizing.inputs import GIGABIT, Costs, Work
from morphmlp.sizing.nodes import Nodes, NodeType
from morphmlp.training.record.accounting import TRAINING_PASSES

BUSY = 0.95
"""Decode cores are counted so that they have at most this share of their time's work: queues stay short, and GPUs wait
for less than the rest."""
BUCKET_BYTES = 25 * 2**20
"""Gradients that DistributedDataParallel exchanges at a time, by default."""
STORE_SHARE = 0.3
"""Of a node's memory that Ray gives its object store by default."""


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Where an optimiser step's time goes with so many workers; seconds."""

    workers: int
    """Workers that have something to do: one GPU each, at most one per micro-batch."""
    compute_s: float
    """Of the worker with the most micro-batches."""
    gradients_s: float = 0.0
    """Sending all gradients round."""
    buckets: int = 1
    """That they go in."""
    exchange_s: float
    """Of it, what the last micro-batch's backward pass doesn't hide."""
    spread: float
    """Micro-batches of a worker on average over those of the busiest: 1 where they divide evenly."""

    @property
    def step_s(self) -> float:
        """Without any wait for data."""
        return self.compute_s + self.exchange_s

    @property
    def busy(self) -> float:
        """Share of the workers' GPUs that computes, without any wait for data."""
        return self.spread * self.compute_s / self.step_s


def step_times(work: Work, costs: Costs, *, gpus: int, nodes: Nodes | None) -> StepTimes:
    """A step on so many GPUs; without `nodes` the exchange of gradients takes no time.

    A ring sends 2 (n - 1) / n of the gradients over every link. The slowest link is a node's network, which its GPUs'
    ring crosses once; inside one node nothing is counted. Buckets are ready evenly over the last backward pass, and go
    round one after the other: the last is never hidden, nor is the rest where the network is slower than that pass.
    """
    workers = min(gpus, work.micro_batches)
    each = -(-work.micro_batches // workers)
    micro_s = costs.step.seconds(work.micro_batch * work.clips_per_video)
    gradients_s, buckets = 0.0, -(-work.gradient_bytes // BUCKET_BYTES)
    if nodes is not None and workers > nodes.train.gpus:
        gradients_s = work.gradient_bytes * 2 * (workers - 1) / workers / (nodes.train.network_gbit * GIGABIT)
    backward_s = micro_s * (TRAINING_PASSES - 1) / TRAINING_PASSES
    return StepTimes(
        workers=workers,
        compute_s=each * micro_s,
        gradients_s=gradients_s,
        buckets=buckets,
        exchange_s=max(gradients_s / buckets, gradients_s - backward_s * (1 - 1 / buckets)),
        spread=work.micro_batches / workers / each,
    )


@dataclass(frozen=True, kw_only=True)
class Size:
    """A cluster for an experiment. Bytes a second are means over training; nodes and cost None without node types."""

    gpus: int
    times: StepTimes
    clips_per_s: float
    cores_per_worker: int
    """Decode cores."""
    decode_busy: float
    """Share of their time that decode cores work."""
    busy: float
    """Share of the workers' GPUs that computes."""
    object_store_bytes: int
    """Decoded clips that wait, over all workers."""
    file_bytes_per_s: float | None
    """From storage to all ingest nodes."""
    clip_bytes_per_s: float
    """From ingest to all training nodes."""
    gradient_bytes_per_s: float
    """Sent by each worker, and received."""
    epoch_s: float
    """Training and validation."""
    hours: float
    train_nodes: int | None = None
    ingest_nodes: int | None = None
    ingest_limit: str | None = None
    """What an ingest node runs out of first: CPUs, network or memory."""
    cost: float | None = None

    @property
    def cores(self) -> int:
        """Decode cores over all workers."""
        return self.times.workers * self.cores_per_worker

    @property
    def epochs_per_day(self) -> float:
        """At this speed."""
        return 86400 / self.epoch_s


def size_cluster(work: Work, costs: Costs, *, gpus: int, nodes: Nodes | None, spare: int = 0) -> Size:
    """How much of everything `gpus` need; `spare` decode cores more for each worker."""
    times = step_times(work, costs, gpus=gpus, nodes=nodes)
    clips_per_s = work.clips_per_step / times.step_s
    demand = clips_per_s * costs.decode_s
    per_worker = math.ceil(demand / BUSY / times.workers) + spare
    cores = per_worker * times.workers
    clip_bytes = clips_per_s / work.clips_per_video * work.video_bytes
    forward_s = costs.step.seconds(work.micro_batch * work.clips_per_video) / TRAINING_PASSES
    batches = -(-work.val_videos // (work.micro_batch * times.workers))
    validation_s = max(batches * forward_s, work.val_videos * costs.decode_s * work.clips_per_video / cores)
    total_s = work.steps * times.step_s + work.validations * validation_s
    size = Size(
        gpus=gpus,
        times=times,
        clips_per_s=clips_per_s,
        cores_per_worker=per_worker,
        decode_busy=demand / cores,
        busy=times.busy,
        object_store_bytes=work.object_store_bytes(cores),
        file_bytes_per_s=None if work.file_bytes is None else clips_per_s / work.clips_per_video * work.file_bytes,
        clip_bytes_per_s=clip_bytes,
        gradient_bytes_per_s=work.gradient_bytes * 2 * (times.workers - 1) / times.workers / times.step_s,
        epoch_s=total_s * work.steps_per_epoch / work.steps,
        hours=total_s / 3600,
    )
    return size if nodes is None else _with_nodes(size, work, costs, nodes)


def _with_nodes(size: Size, work: Work, costs: Costs, nodes: Nodes) -> Size:
    train = -(-size.times.workers // nodes.train.gpus)
    usable, limit = usable_cores(work, costs, nodes.ingest)
    ingest = -(-size.cores // usable)
    hourly = train * nodes.train.hour_price + ingest * nodes.ingest.hour_price + nodes.head_hour_price
    return replace(size, train_nodes=train, ingest_nodes=ingest, ingest_limit=limit, cost=hourly * size.hours)


def usable_cores(work: Work, costs: Costs, node: NodeType) -> tuple[int, str]:
    """Decode cores that one ingest node can feed, and what it has no more of: CPUs, network or memory.

    Raises:
        ConfigError: Not a single one.
    """
    video_s = costs.decode_s * work.clips_per_video
    sent = max(work.video_bytes, work.file_bytes or 0.0)
    limits = {
        "CPUs": node.cpus,
        "network": int(node.network_gbit * GIGABIT / (sent / video_s)),
    }
    if work.store_bytes is None:  # else the run's limit is a total, whatever the number of nodes
        limits["memory"] = int(node.memory_gib * 2**30 * STORE_SHARE / work.object_store_bytes(1))
    limit = min(limits, key=lambda name: limits[name])
    if limits[limit] < 1:
        raise ConfigError([f"ingest: the {limit} of such a node aren't enough for one decode core; name a larger node"])
    return limits[limit], limit


def remarks(size: Size, work: Work, costs: Costs, nodes: Nodes | None = None) -> list[str]:
    """What a reader of the table must know, a line each."""
    found = []
    clips = work.micro_batch * work.clips_per_video
    if size.times.workers < size.gpus:
        least = -(-work.videos_per_step // size.gpus)
        found.append(
            f"{size.gpus - size.times.workers} GPUs would have nothing to do: train.micro_batch_size {least} (other "
            f"BatchNorm statistics) or train.global_batch_size {size.gpus * work.micro_batch} (another recipe: "
            "learning rate and warm-up go with it) would use all"
        )
    if costs.step.is_extrapolated(clips):
        found.append(f"a micro-batch of {clips} clips lies outside of what was measured ({costs.step.described()})")
    if nodes is not None and costs.full_cores not in (None, nodes.ingest.cpus):
        found.append(
            f"what decoding costs on a full node was measured with {costs.full_cores} cores, ingest nodes have "
            f"{nodes.ingest.cpus}: measure it on one of them"
        )
    if size.busy < BUSY:
        found.append(f"even without a wait for data GPUs compute {size.busy:.0%} of the time, under {BUSY:.0%}")
    return found
