"""A sweep in the record: every trial on its own run, the result of all on the sweep's.

A trial's run already has its experiment's parameters and what training and test measured; here it gets its place in
the sweep, and columns for MLflow's compare view and parallel coordinates, which draw numbers, not lists. A store that
can't be reached or used is a TrackingError.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue, TypeAdapter

from morphmlp.config.sweep import Range, SweepConfig
from morphmlp.environment import environment_tags
from morphmlp.progress import Progress
from morphmlp.record import MetricPoint, Metrics, Tags, is_same
from morphmlp.reporting.tables.published import Ablation, printed_numbers
from morphmlp.tasks.scores import ScoreName, primary_score
from morphmlp.tracking import RetryPolicy, RunWriter, find_run, open_run
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.trial_queue import Entry
from morphmlp.tuning.run.trials import SweepResult, Trial, TrialEnd
from morphmlp.tuning.space.space import short_names

RESULT_FILE = "sweep_result.json"
"""Artifact of the sweep's run: its `SweepResult`."""
_MEASURED = {
    "num_videos": Metrics.TEST_NUM_VIDEOS,
    "epochs": Metrics.TRIAL_EPOCHS,
    "steps": Metrics.TRIAL_STEPS,
    "gmacs": Metrics.TRIAL_GMACS,
    "params": Metrics.TRIAL_PARAMS,
    "clips_per_s": Metrics.RUN_CLIPS_PER_S,
    "wall_s": Metrics.RUN_WALL_S,
    "cpu_s": Metrics.RUN_CPU_S,
}
_RESULT = TypeAdapter(SweepResult)


def open_sweep_run(
    sweep: SweepConfig,
    folder: SweepFolder,
    *,
    uri: str,
    dataset: str,
    task: str,
    data_tags: Mapping[str, str],
    source: Mapping[str, str],
) -> RunWriter:
    """Open the sweep's own run, or the one that it had before it was stopped."""
    params: dict[str, JsonValue] = {
        "experiment": sweep.experiment,
        "task": task,
        "search": sweep.search.kind,
        "scheduler": sweep.scheduler.kind,
        "seeds": list(sweep.seeds),
        "max_concurrent_trials": sweep.max_concurrent_trials,
        **{f"overrides.{name}": value for name, value in sweep.overrides.items()},
        **{
            f"space.{name}": dataclasses.asdict(values) if isinstance(values, Range) else list(values)
            for name, values in sweep.space.items()
        },
    }
    content = folder.sweep.read_bytes() + folder.base.read_bytes()
    tags = {
        **environment_tags(),
        **source,
        **data_tags,
        Tags.EXPERIMENT: sweep.name,
        Tags.KIND: "sweep",
        Tags.FINGERPRINT: hashlib.sha256(content).hexdigest()[:12],  # by it a resumed sweep finds its run
    }
    run_id = open_run(uri, experiment=dataset, run_name=folder.root.name, tags=tags, params=params)
    return RunWriter(uri, run_id)


class TrialRecorder:
    """Writes trials that have ended to their runs."""

    def __init__(
        self, uri: str, experiment: str, folder: SweepFolder, progress: Progress, published: Sequence[Ablation] = ()
    ) -> None:
        """Take the store, the sweep's experiment and folder in it, and the paper's ablations to look points up in."""
        self._uri, self._experiment, self._published = uri, experiment, published
        self._retry = RetryPolicy(log=progress.line, kept_in=folder.root)

    def write(self, entry: Entry) -> None:
        """Complete a trial's run."""
        trial = self.trial(entry)
        if trial.run_id is None:
            return
        writer = RunWriter(self._uri, trial.run_id, retry=self._retry)
        write_trial(writer, trial, task=entry.job.config.task)
        if trial.state != "finished":
            writer.finish("KILLED" if trial.state in ("stopped", "timed_out") else "FAILED")

    def trial(self, entry: Entry) -> Trial:
        """What became of a trial."""
        job, point, validations = entry.job, entry.point, entry.view.validations
        end = entry.view.end or TrialEnd(state="failed")
        if end.run_id is None and (known := find_run(self._uri, run_name=job.run_name, experiment=self._experiment)):
            end = dataclasses.replace(end, run_id=known.run_id)
        return Trial(
            **vars(end),
            number=job.number,
            point=point.values,
            title=point.title,
            seed=entry.seed,
            run_name=job.run_name,
            val_score=validations[max(validations)] if validations else None,
            epochs=len(validations),
            steps=max(validations, default=0) if job.config.train.unit == "step" else None,
            gmacs=point.cost.gmacs,
            params=point.cost.params,
            replaces=point.replaces,
            printed=printed_numbers(self._published, job.config, point.values),
        )


def write_trial(writer: RunWriter, trial: Trial, *, task: str) -> None:
    """Complete a trial's run; may be repeated, also after the trial was tried again and ended otherwise."""
    tags, metrics = writer.stored()
    due = {
        Tags.KIND: "trial",
        Tags.POINT: json.dumps(dict(trial.point)),
        Tags.TRIAL_STATE: trial.state,
        Tags.TRIAL_NUMBER: str(trial.number),
        Tags.TRIAL_SEED: str(trial.seed),
        Tags.TRIAL_TITLE: trial.title,
    }
    if trial.error is not None or Tags.ERROR in tags:
        due[Tags.ERROR] = trial.error or ""
    if trial.replaces is not None:
        due[Tags.TRIAL_REPLACES] = json.dumps(dict(trial.replaces))
    writer.params(dict(stage_params(trial.point)))
    writer.metrics(list(_new_points(writer, trial, primary_score(task), metrics)))
    writer.tags({name: text for name, text in due.items() if tags.get(name) != text})


def write_sweep(writer: RunWriter, result: SweepResult) -> None:
    """Put the result of the sweep on its own run."""
    writer.text(_RESULT.dump_json(result, indent=1).decode(), RESULT_FILE)


def stage_params(point: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """A parameter for each number of a swept list, `sweep.chunk_lengths.stage1`."""
    for name, value in zip(short_names(list(point)), point.values(), strict=True):
        if isinstance(value, list) and all(isinstance(number, int | float) for number in value):
            yield from ((f"sweep.{name}.stage{stage}", number) for stage, number in enumerate(value, start=1))


def _new_points(
    writer: RunWriter, trial: Trial, primary: ScoreName, known: Mapping[str, float]
) -> Iterator[MetricPoint]:
    """Metrics that the run doesn't have, or has from an earlier try: those get a point after their last one."""
    measured: dict[str, float | None] = {f"test/{key}": score for key, score in trial.scores.items()}
    measured |= {key: getattr(trial, field) for field, key in _MEASURED.items()}
    if trial.steps is not None:
        del measured[Metrics.TRIAL_EPOCHS]
    measured[primary.val_metric] = trial.val_score
    for key, value in measured.items():
        if value is None or is_same(value, known.get(key)):
            continue
        step = (trial.steps or trial.epochs) if key == primary.val_metric else 0
        if key in known:
            step = writer.history([key])[-1].step + 1
        yield MetricPoint.now(key, float(value), step)
