"""Repeats one step of a run in this process: the same videos, the same draws, the same state.

The state is the one that a skipped step met, where that was kept; else it comes from the newest checkpoint before the
step (or from the beginning), and the steps in between are trained again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.data.quarantine import Quarantine
from morphmlp.data.stream.batches import ClipShape, MicroBatch, assemble
from morphmlp.data.stream.decode_task import REQUEST_COLUMNS, DecodePolicy, DecodeTask, decode_limits, request_table
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.errors import CheckpointError, ConfigError, ManifestError
from morphmlp.line_file import read_json_lines
from morphmlp.models.parts import training_mode
from morphmlp.progress import Progress
from morphmlp.record import Metrics, is_same
from morphmlp.tasks.factory import task_of
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.loop.device_choices import agreed_precision, prepare_network
from morphmlp.training.loop.loop import Recipe
from morphmlp.training.loop.state import Checkpoint, TrainState, checkpoint_from, new_state, restore
from morphmlp.training.record.ledger import read_history
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.replay.one_process import AllWorkersStepper, SeenMicroBatch, StepInspection
from morphmlp.training.replay.skipped_steps import (
    read_skipped_state,
    read_skipped_step,
    skipped_step_folder,
    step_plans,
)
from morphmlp.training.weights.start import start


@dataclass(frozen=True, kw_only=True)
class ReplayedStep:
    """A step that was taken again; the JSON of `--json`, where numbers that aren't finite are texts."""

    run: str
    """Its folder."""
    step: int
    """From 1, as in the record."""
    epoch: int
    """From 1."""
    from_state: str
    """Where its state came from."""
    steps_before: int
    """Steps that were trained again to get there."""
    num_workers: int
    """Workers whose order of summation was followed."""
    precision: str
    device: str
    micro_batches: tuple[SeenMicroBatch, ...]
    """By their place in the step."""
    loss: float
    """Mean over the step's clips."""
    grad_norm: float
    """Before clipping."""
    skipped: bool
    recorded_loss: float | None
    """What the run wrote down of this very step: of one that it skipped, and of others where each step was reported by
    itself (`execution.report_every_steps: 1`); None where it didn't."""
    recorded_grad_norm: float | None

    @property
    def as_recorded(self) -> bool | None:
        """Whether both numbers are those of the run, to the last bit; None where it wrote none down."""
        if self.recorded_loss is None or self.recorded_grad_norm is None:
            return None
        return is_same(self.loss, self.recorded_loss) and is_same(self.grad_norm, self.recorded_grad_norm)


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run as its folder and its manifest describe it."""

    folder: RunFolder
    config: ExperimentConfig
    videos: Manifest
    """The available training videos."""
    recipe: Recipe

    def micro_batches(self, cursor: Cursor, device: torch.device) -> list[MicroBatch]:
        """All micro-batches of a step, decoded in this process as decode tasks do.

        Raises:
            ManifestError: A video's file isn't the one that the run read.
        """
        plans = step_plans(self.recipe.plan, cursor)
        config = self.config
        extractor = self.recipe.task.train_clips()
        policy = DecodePolicy(
            decoder=config.ingest.decoder, retry_with=config.ingest.retry_with, limits=decode_limits(config.ingest)
        )
        task = DecodeTask(extractor=extractor, policy=policy)
        finish, shape = extractor.finish_on(device), ClipShape.of(extractor)
        tables = (task(request_table(self.videos, [plan])) for plan in plans)
        self._require_same_files(cursor)
        threads = torch.get_num_threads()
        batches = list(assemble(tables, iter(plans), manifest=self.videos, stage="train", shape=shape, finish=finish))
        torch.set_num_threads(threads)  # a decode task takes one
        self._require_same_broken(batches)
        return batches

    def _require_same_files(self, cursor: Cursor) -> None:
        faults = []
        for plan in step_plans(self.recipe.plan, cursor):
            for video in self.videos.table.take(plan.rows).to_pylist():
                path = Path(video["path"])
                if video.get("offset") is not None:  # one image of many in the file; its checksum says the rest
                    continue
                if path.is_file() and (found := path.stat().st_size) != video["size_bytes"]:
                    faults.append(
                        f"{path} (video {video['video_id']}) has {found} bytes, the manifest says "
                        f"{video['size_bytes']}: the file was changed; put back the one that the run read"
                    )
        if faults:
            raise ManifestError("\n".join(faults))

    def _require_same_broken(self, batches: list[MicroBatch]) -> None:
        known = {video.video_id for video in Quarantine.read(self.folder.quarantine).videos("train")}
        if faults := [
            f"{video.path} (video {video.video_id}) can't be used any more: {video.message}; the run could read it"
            for batch in batches
            for video in batch.broken
            if video.video_id not in known
        ]:
            raise ManifestError("\n".join(faults))


def open_run(run: str, *, storage: Path) -> RecordedRun:
    """Read what is known of a run.

    Raises:
        ConfigError: There is no such run.
        ManifestError: Its training manifest can't be read.
    """
    places = [Path(run), storage / run]
    root = next((place for place in places if RunFolder(place).experiment.exists()), None)
    if root is None:
        there = sorted(path.parent.name for path in storage.glob("*/experiment.yaml"))
        hint = f"{storage} holds {', '.join(there[-5:])}" if there else f"{storage} holds no runs; say --storage DIR"
        raise ConfigError([f"{run}: no such run, neither as a folder nor under {storage}; {hint}"])
    folder = RunFolder(root)
    config = load_config(folder.experiment)
    videos = read_manifest(config.data.train, only=(*REQUEST_COLUMNS, "size_bytes")).available()
    plan = TrainPlan.of(config.train, num_videos=len(videos))
    recipe = Recipe.of(config, plan=plan, task=task_of(config, train=videos))
    return RecordedRun(folder=folder, config=config, videos=videos, recipe=recipe)


def replay(
    run: RecordedRun, number: int, *, device: torch.device, num_workers: int | None, progress: Progress
) -> ReplayedStep:
    """Take a step again.

    Only on the run's own kind of device it gives the same numbers. Followed is the order of summation of `num_workers`;
    None: those of the skipped step, else as the ledger has it, else as configured, else 1.

    Raises:
        ConfigError: The run has no such step, or no use for so many workers.
        CheckpointError: No state from which it could be reached can be read.
        ManifestError: The videos aren't those of the run any more.
    """
    _require_possible(run, number, num_workers)
    beginning = _beginning(run, number, device, progress)
    state, num_workers = beginning.state, num_workers or beginning.num_workers
    _prepare(run, state, device, progress)
    steps_before = number - 1 - run.recipe.plan.step_of(state.cursor)
    if steps_before:
        progress.phase("training again up to the step", total=steps_before, unit="steps")
    stepper = AllWorkersStepper(state, recipe=run.recipe, device=device, num_workers=num_workers)
    for done in range(1, steps_before + 1):
        stepper.take(run.micro_batches(state.cursor, device))
        progress.update(done, f"loss {stepper.loss:.3f}")
    epoch, batches = state.cursor.epoch, run.micro_batches(state.cursor, device)
    with StepInspection(state, recipe=run.recipe, videos=run.videos, num_workers=num_workers) as inspection:
        stepper = AllWorkersStepper(
            state, recipe=run.recipe, device=device, num_workers=num_workers, on_micro_batch=inspection.see
        )
        summary = stepper.take(batches)
    return ReplayedStep(
        run=str(run.folder.root),
        step=number,
        epoch=epoch + 1,
        from_state=beginning.origin,
        steps_before=steps_before,
        num_workers=num_workers,
        precision=state.precision,
        device=str(device),
        micro_batches=tuple(sorted(inspection.seen, key=lambda batch: batch.index)),
        loss=stepper.loss,
        grad_norm=stepper.grad_norm,
        skipped=bool(summary.totals.skipped),
        recorded_loss=beginning.recorded[0],
        recorded_grad_norm=beginning.recorded[1],
    )


def _require_possible(run: RecordedRun, number: int, num_workers: int | None) -> None:
    if not 1 <= number <= run.recipe.total_steps:
        raise ConfigError([f"step {number}: {run.folder.root} has steps 1 to {run.recipe.total_steps}"])
    most = run.recipe.plan.micro_batches_per_step
    if num_workers is not None and not 1 <= num_workers <= most:
        raise ConfigError([f"--workers {num_workers}: a step has {most} micro-batches; use 1 to {most} workers"])


@dataclass(frozen=True, kw_only=True)
class _Beginning:
    """Where a replay begins, and what the run wrote down of the step that it replays."""

    state: TrainState
    origin: str
    """Where the state came from."""
    num_workers: int
    """Workers that shared the step in the run."""
    recorded: tuple[float | None, float | None]
    """Loss and gradient norm."""


def _beginning(run: RecordedRun, number: int, device: torch.device, progress: Progress) -> _Beginning:
    stored = read_skipped_step(skipped_step_folder(run.folder.skipped_steps, number))
    if stored is None:
        state, origin = _state_before(run, number, device, progress)
        recorded = _reported_numbers(run.folder, number)
        return _Beginning(state=state, origin=origin, num_workers=_workers_at(run, number), recorded=recorded)
    checkpoint = _checkpoint(read_skipped_state(stored.folder), where=str(stored.folder))
    return _Beginning(
        state=_restored(run, checkpoint, device),
        origin=f"the state that was kept in {stored.folder}",
        num_workers=stored.num_workers,
        recorded=(stored.loss, stored.grad_norm),
    )


def _prepare(run: RecordedRun, state: TrainState, device: torch.device, progress: Progress) -> None:
    """Prepare the network as a worker does; only compiled blocks couldn't be looked into."""
    execution = replace(run.config.execution, compile="off")
    if device.type == "cpu" and execution.kernels == "triton":
        execution = replace(execution, kernels="torch")
        progress.line("the run's kernels in Triton need a GPU: numbers may differ in the last digits here")
    plain = replace(run.config, execution=execution)
    for note in prepare_network(plain, state.model, device, state.precision, local_workers=1):
        progress.line(note)
    if run.config.execution.compile != "off":
        progress.line(
            "blocks aren't compiled here, so that they can be looked into: numbers may differ in the last digits"
        )
    training_mode(state.model)


def _state_before(run: RecordedRun, number: int, device: torch.device, progress: Progress) -> tuple[TrainState, str]:
    """From the newest checkpoint that can be read and isn't behind the step, else from the beginning."""
    config, store = run.config, run_store(run.config.checkpoint, run.folder)
    for found in reversed(store.stored()):
        if found.facts.step < number:
            try:
                checkpoint = _checkpoint(store.read(found.name), where=found.location)
            except CheckpointError as error:
                progress.line(f"checkpoint left out: {error}")
                continue
            return _restored(run, checkpoint, device), f"checkpoint {found.name}"
    precision = agreed_precision(config.train.precision, device)
    state = new_state(run.recipe.task, train=config.train, optim=config.optim, device=device, precision=precision)
    for note in start(state, config, run.videos.class_names, data_fingerprint=run.videos.fingerprint()):
        progress.line(note)
    if run.recipe.plan.step_of(state.cursor) >= number:
        raise ConfigError([f"step {number}: was taken by the run that {run.folder.root} extends; replay it there"])
    return state, "the beginning, for there is no checkpoint before the step"


def _checkpoint(content: Mapping[str, Any], *, where: str) -> Checkpoint:
    try:
        return checkpoint_from(content)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _restored(run: RecordedRun, checkpoint: Checkpoint, device: torch.device) -> TrainState:
    found = run.videos.fingerprint()
    if checkpoint.data_fingerprint != found:
        raise ManifestError(
            f"{run.config.data.train}: its videos aren't those of the run any more (fingerprint {found}, the run's "
            f"{checkpoint.data_fingerprint}), so the step would take others; put the run's manifest back"
        )
    state = new_state(
        run.recipe.task, train=run.config.train, optim=run.config.optim, device=device, precision=checkpoint.precision
    )
    restore(state, checkpoint, config=run.config, data_fingerprint=found)
    return state


def _workers_at(run: RecordedRun, number: int) -> int:
    """Workers that shared a step: as the ledger has it, else as configured, else 1."""
    for attempt in reversed(read_history(run.folder.ledger).attempts):
        if number - 1 in attempt.steps:
            return attempt.num_workers
    workers = run.config.cluster.num_workers
    return workers if isinstance(workers, int) else 1


def _reported_numbers(folder: RunFolder, number: int) -> tuple[float | None, float | None]:
    """Loss and gradient norm of a step in the workers' reports; none where the report is a mean over several steps."""
    points = {
        (key, step): value
        for line in read_json_lines(folder.progress)
        for key, value, step, _ in line.get("points", [])
    }
    alone = number == 1 or (Metrics.TRAIN_LOSS, number - 1) in points
    loss, grad_norm = points.get((Metrics.TRAIN_LOSS, number)), points.get((Metrics.TRAIN_GRAD_NORM, number))
    return (loss, grad_norm) if alone and loss is not None and grad_norm is not None else (None, None)
