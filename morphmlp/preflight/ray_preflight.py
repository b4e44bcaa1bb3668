"""Looks a cluster over: all of it for the command, what takes seconds before each training on several nodes."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from morphmlp.cluster.ray_cluster import Placement, job_session, ray_session
from morphmlp.cluster.ray_nodes import NodeResources, cluster_nodes
from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.decode_task import DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan, TrainPlan
from morphmlp.environment import environment_tags
from morphmlp.errors import ClusterError, TrackingError
from morphmlp.models.planned_cost import experiment_cost
from morphmlp.preflight.checks import STOPPING, faults_of
from morphmlp.preflight.memory import TrainingMemory
from morphmlp.preflight.node import node_facts
from morphmlp.preflight.ray_look import VideoSample, Visit
from morphmlp.preflight.ray_pairs import measure_pairs
from morphmlp.preflight.ray_shared_files import questions_about
from morphmlp.preflight.ray_steps import folder_of_steps, take_steps
from morphmlp.preflight.report import ClusterReport, Needs, NodeReport
from morphmlp.preflight.shared_files import Question, readable
from morphmlp.preflight.shared_files import faults_of as file_faults
from morphmlp.progress import Progress
from morphmlp.targets import CLIP_CACHE
from morphmlp.tasks.factory import task_of
from morphmlp.tracking import RunWriter, open_run, prepare_store, ready_store

EXPERIMENT = "preflight"
"""MLflow's experiment of the reports."""
_SAMPLE = {"train": 8, "val": 4, "test": 4}
"""Videos of each split that a node decodes."""
_BYTES_PER_PARAMETER = 12
"""Of a checkpoint: the weights and the optimiser's two averages, in 32 bits."""
_LEAST_FREE = 2**30
_OF_MEMORY = ("memory", "decode memory")
"""Checks by the arithmetic of memory."""


def require_ready(config: ExperimentConfig, placement: Placement, progress: Progress) -> None:
    """The part that takes seconds, before a training: memory; on several nodes versions, clocks, disks and limits.

    What a training can live with is said on a line. Other trials of a sweep that run at the same time aren't counted.

    Raises:
        ClusterError: A line for each fault that it can't live with.
    """
    nodes = cluster_nodes()
    reports = _reports(config, nodes, placement)
    if looks := placement.on_cluster and len(nodes) > 1:
        visit = Visit(reports)
        visit.look({node: Question() for node in nodes}, {node: _folders(config, reports[node]) for node in nodes})
        reports = visit.reports
    elif placement.device == "cuda" and len(nodes) == 1:
        reports = {node: replace(report, facts=node_facts({})) for node, report in reports.items()}
    here = node_facts({}).versions if looks else {}
    report = ClusterReport(needs=_needs(config, placement, at_most=True), here=here, nodes=tuple(reports.values()))
    checks = () if looks else (("memory",),)
    faults = faults_of(report, *checks)
    if not _has_room(report) or any(fault.check in _OF_MEMORY for fault in faults):
        report = replace(report, needs=_needs(config, placement))
        faults = faults_of(report, *checks)
    # Ray may choose another node than the one that has too little.
    somewhere = sum(fault.check == "memory" for fault in faults) < sum(node.workers > 0 for node in report.nodes)
    stopping = [name for name in STOPPING if not (name == "memory" and somewhere)]
    for fault in faults:
        if fault.check not in stopping:
            progress.line(str(fault))
    if refused := [str(fault) for fault in faults if fault.check in stopping]:
        raise ClusterError("\n".join(refused))


def _has_room(report: ClusterReport) -> bool:
    """Whether the workers of all nodes and GPUs need recompute nothing."""
    needs = report.needs.memory
    if needs is None:
        return True
    rooms = [node.memory_bytes // node.workers for node in report.nodes if node.workers and node.memory_bytes]
    if needs.device == "cuda":
        rooms = [node.facts.gpu_bytes for node in report.nodes if node.workers and node.facts is not None]
    return not any(needs.recomputes(room) for room in rooms)


def look_over(
    config: ExperimentConfig, videos: Mapping[str, Manifest], *, run_name: str, progress: Progress
) -> tuple[ClusterReport, RunWriter | None]:
    """Everything, in a Ray session of its own; with the record's run that awaits the report, where there is one."""
    writer, record = _opened(config, run_name)
    try:
        return replace(_seen(config, videos, writer, progress=progress), record=record), writer
    except BaseException:
        if writer is not None:
            with suppress(TrackingError):
                writer.finish("KILLED")
        raise


def _seen(
    config: ExperimentConfig, videos: Mapping[str, Manifest], writer: RunWriter | None, *, progress: Progress
) -> ClusterReport:
    plan = TrainPlan.of(config.train, num_videos=len(videos["train"]))
    with (
        folder_of_steps(config, progress) as folder,  # outlives Ray, whose processes write there to their end
        _session(config, micro_batches=plan.micro_batches_per_step) as (placement, misfit),
    ):
        nodes = cluster_nodes()
        progress.line(f"asking {len(nodes)} node{'s' if len(nodes) > 1 else ''}")
        visit = Visit(_reports(config, nodes, placement))
        files = _look(config, videos, visit)
        report = ClusterReport(
            needs=_needs(config, placement, misfit), here=node_facts({}).versions, nodes=(), files=tuple(files)
        )
        if placement is not None:
            progress.line("decoding a few videos on each node that decodes")
            visit.decode(list(_samples(config, videos, placement)))
            training = [node for node in nodes if visit.reports[node].trains and visit.reports[node].facts]
            report = replace(
                report, nodes=tuple(visit.reports.values()), pairs=measure_pairs(training, placement, progress)
            )
            # Else workers would wait for each other, or for their storage, until a time limit or Ray ends it.
            if not files and not any(pair.fault for pair in report.pairs) and not faults_of(report, STOPPING):
                with _store_of_steps(writer) as store:
                    report = replace(
                        report, steps=take_steps(config, videos, placement, store, folder, progress=progress)
                    )
        return replace(report, nodes=tuple(visit.reports.values()))


def _look(config: ExperimentConfig, videos: Mapping[str, Manifest], visit: Visit) -> list[str]:
    """Take in each node's facts; returns a line for whatever of storage and videos one doesn't see."""
    nodes = {node: (report.trains, report.decodes) for node, report in visit.reports.items()}
    folders = {node: _folders(config, report) for node, report in visit.reports.items()}
    try:
        with questions_about(config, [videos], nodes) as (questions, asked):
            return file_faults(visit.look(questions, folders), readable(asked))
    except ClusterError as error:
        visit.look(dict.fromkeys(nodes, Question()), folders)
        return [f"{error}; name a folder that can be written to"]


@contextmanager
def _session(config: ExperimentConfig, *, micro_batches: int) -> Iterator[tuple[Placement | None, str | None]]:
    """Ray, with a placement, or the reason why there is none."""
    with ExitStack() as stack:
        try:
            # What differs between nodes is for the report.
            found = stack.enter_context(
                ray_session(config.cluster, config.ingest, micro_batches=micro_batches, compare_nodes=False)
            )
        except ClusterError as error:
            stack.enter_context(job_session(local_cpus=config.cluster.local_cpus))
            yield None, str(error)
        else:
            yield found, None


def _reports(
    config: ExperimentConfig, nodes: list[NodeResources], placement: Placement | None
) -> dict[NodeResources, NodeReport]:
    """What is known of the nodes without asking them."""
    labels = config.ingest.node_labels if placement is None else placement.ingest_labels
    reports = {}
    for node in nodes:
        workers = 0 if placement is None else placement.workers_on(node)
        decodes = node.may_decode(labels)
        reports[node] = NodeReport(
            name=node.name,
            trains=node.cpus > 0 if placement is None else workers > 0,
            decodes=decodes,
            gpus=node.gpus,
            memory_bytes=node.memory_bytes,
            object_store_bytes=node.object_store_bytes,
            workers=workers,
            decode_tasks=0
            if placement is None or not decodes
            else max(0, min(placement.ingest_cpus, node.cpus - workers * placement.cpus_per_worker)),
        )
    return reports


def _folders(config: ExperimentConfig, node: NodeReport) -> dict[str, str]:
    """Whose disks matter on a node, by field."""
    storage = config.checkpoint.storage
    folders = {"cluster.storage": config.cluster.storage} if node.trains else {}
    if node.trains and storage is not None and "://" not in storage:
        folders["checkpoint.storage"] = storage
    if node.decodes and config.ingest.clip_cache is not None:
        folders[CLIP_CACHE] = config.ingest.clip_cache
    return folders


def _needs(
    config: ExperimentConfig, placement: Placement | None, misfit: str | None = None, *, at_most: bool = False
) -> Needs:
    params = experiment_cost(config).params
    memory = None
    if placement is not None:
        share = placement.ingest_share(config.ingest, pipelines=1)
        clips = task_of(config).train_clips()
        memory = TrainingMemory.of(config, clips, share, device=placement.device, at_most=at_most)
    # Those kept, the best one, and the one that is being written.
    checkpoints = max(_LEAST_FREE, (config.checkpoint.keep_last + 2) * _BYTES_PER_PARAMETER * params)
    holds = "cluster.storage" if config.checkpoint.storage is None else "checkpoint.storage"
    return Needs(
        device=config.cluster.device if placement is None else placement.device,
        decoder=config.ingest.decoder,
        misfit=misfit,
        free_bytes={"cluster.storage": _LEAST_FREE, holds: checkpoints, CLIP_CACHE: _LEAST_FREE},
        memory=memory,
    )


def _samples(config: ExperimentConfig, videos: Mapping[str, Manifest], placement: Placement) -> Iterator[VideoSample]:
    """Some videos of each split, the same ones each time, as training and validation decode them."""
    task = task_of(config, train=videos["train"])
    policy = replace(placement.ingest_share(config.ingest, pipelines=1).policy, cache=None)
    for split, count in _SAMPLE.items():
        rows = np.random.default_rng(0).permutation(len(videos[split]))[:count].astype(np.int64)
        plan = MicroBatchPlan(epoch=0, step=0, index=0, rows=rows)
        trained = split == "train"
        extractor = task.train_clips() if trained else task.val_clips()
        yield VideoSample(
            table=request_table(videos[split], [plan]),
            task=DecodeTask(extractor=extractor, policy=policy),
            clips_per_video=config.augment.repeats if trained else None,
        )


def _opened(config: ExperimentConfig, run_name: str) -> tuple[RunWriter | None, str | None]:
    """A run of MLflow's for the report, or why there can't be one."""
    try:
        ready_store(config.dataset)
        uri = ready_store(EXPERIMENT)
        tags = environment_tags(Path(__file__).parent)
        writer = RunWriter(uri, open_run(uri, experiment=EXPERIMENT, run_name=run_name, tags=tags, params={}))
        writer.text(f"{config.name}\n", "experiment.txt")  # artifacts have a store of their own
    except TrackingError as error:
        return None, str(error)
    return writer, None


@contextmanager
def _store_of_steps(writer: RunWriter | None) -> Iterator[RunWriter]:
    """Where the steps are recorded: with the report, or where MLflow takes nothing in a file that goes with them."""
    if writer is not None:
        yield writer
        return
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        prepare_store(uri)
        yield RunWriter(uri, open_run(uri, experiment=EXPERIMENT, run_name="steps", tags={}, params={}))
