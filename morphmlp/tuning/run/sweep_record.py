"""A sweep's result in the record and back: every trial on its own run, what belongs to none on the sweep's.

A trial's run already has its experiment's parameters and what training and test measured; here it gets its place in
the sweep, and columns for MLflow's compare view and parallel coordinates, which draw numbers, not lists.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping

from pydantic import JsonValue, TypeAdapter

from morphmlp.errors import TrackingError
from morphmlp.record import MetricPoint, Metrics, RunSummary, Tags
from morphmlp.tasks.scores import ScoreName, primary_score, scores_of
from morphmlp.tracking import RunWriter, read_children, read_run, read_text
from morphmlp.tuning.run.trials import SweepResult, Trial
from morphmlp.tuning.space.space import ImpossiblePoint, short_names

RESULT_FILE = "sweep_result.json"
"""Artifact of the sweep's run: impossible points, trials without a run of their own, its name and time."""
_MEASURED = {
    "num_videos": Metrics.TEST_NUM_VIDEOS,
    "epochs": Metrics.TRIAL_EPOCHS,
    "gmacs": Metrics.TRIAL_GMACS,
    "params": Metrics.TRIAL_PARAMS,
    "clips_per_s": Metrics.RUN_CLIPS_PER_S,
    "wall_s": Metrics.RUN_WALL_S,
    "cpu_s": Metrics.RUN_CPU_S,
}
_WHOLE = ("num_videos", "epochs", "params")
_TRIALS = TypeAdapter(tuple[Trial, ...])
_TRIAL = TypeAdapter(Trial)
_TIME = TypeAdapter(float)
_IMPOSSIBLE = TypeAdapter(tuple[ImpossiblePoint, ...])


def write_trial(writer: RunWriter, trial: Trial, *, task: str) -> None:
    """Complete a trial's run; may be repeated, also after the trial was tried again and ended otherwise.

    Args:
        writer: Of its run.
        trial: What became of it.
        task: Of its experiment.

    Raises:
        TrackingError: The store can't be reached or used.
    """
    tags, metrics = writer.stored()
    wanted = {
        Tags.KIND: "trial",
        Tags.POINT: json.dumps(dict(trial.point)),
        Tags.TRIAL_STATE: trial.state,
        Tags.TRIAL_NUMBER: str(trial.number),
        Tags.TRIAL_SEED: str(trial.seed),
        Tags.TRIAL_TITLE: trial.title,
    }
    if trial.error is not None or Tags.ERROR in tags:
        wanted[Tags.ERROR] = trial.error or ""
    if trial.replaces is not None:
        wanted[Tags.TRIAL_REPLACES] = json.dumps(dict(trial.replaces))
    writer.params(dict(stage_params(trial.point)))
    writer.metrics(list(_new_points(writer, trial, primary_score(task), metrics)))
    writer.tags({name: text for name, text in wanted.items() if tags.get(name) != text})


def write_sweep(writer: RunWriter, result: SweepResult) -> None:
    """Put on the sweep's own run what its trials' runs can't hold.

    Raises:
        TrackingError: The store can't be reached or used.
    """
    content = {
        "run_name": result.run_name,
        "wall_s": result.wall_s,
        "task": result.task,
        "impossible": _IMPOSSIBLE.dump_python(result.impossible, mode="json"),
        "without_run": _TRIALS.dump_python(
            tuple(trial for trial in result.trials if trial.run_id is None), mode="json"
        ),
    }
    writer.text(json.dumps(content, indent=1), RESULT_FILE)


def read_sweep(uri: str, parent_run_id: str) -> SweepResult:
    """A sweep's result as the record has it; trials whose end isn't recorded (yet) are left out.

    Raises:
        TrackingError: The store can't be reached or used, or the run is none of a sweep.
    """
    parent = read_run(uri, parent_run_id)
    text = read_text(uri, parent_run_id, RESULT_FILE)
    content: dict[str, JsonValue] = json.loads(text or "{}")
    if parent.tags.get(Tags.KIND) != "sweep" and not content:
        raise TrackingError(f"run {parent_run_id} ({parent.run_name}): is none of a sweep")
    trials = {trial.number: trial for trial in _TRIALS.validate_python(content.get("without_run", ()))}
    newest_last = reversed(read_children(uri, parent_run_id))
    task = str(content.get("task") or parent.params["task"])
    trials |= {trial.number: trial for run in newest_last if (trial := _trial(run, scores_of(task))) is not None}
    return SweepResult(
        parent_run_id=parent_run_id,
        run_name=parent.run_name,
        wall_s=_TIME.validate_python(content.get("wall_s", parent.metrics.get(Metrics.RUN_WALL_S, 0.0))),
        task=task,
        trials=tuple(trials[number] for number in sorted(trials)),
        impossible=_IMPOSSIBLE.validate_python(content.get("impossible", ())),
    )


def stage_params(point: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """A parameter for each number of a swept list, `sweep.chunk_lengths.stage1`."""
    for name, value in zip(short_names(list(point)), point.values(), strict=True):
        if isinstance(value, list) and all(isinstance(number, int | float) for number in value):
            yield from ((f"sweep.{name}.stage{stage}", number) for stage, number in enumerate(value, start=1))


def _new_points(
    writer: RunWriter, trial: Trial, primary: ScoreName, known: Mapping[str, float]
) -> Iterator[MetricPoint]:
    """Metrics that the run doesn't have, or has from an earlier try: those get a point after their last one."""
    now_ms = int(time.time() * 1000)
    measured: dict[str, float | None] = {f"test/{key}": score for key, score in trial.scores.items()}
    measured |= {key: getattr(trial, field) for field, key in _MEASURED.items()}
    measured[primary.val_metric] = trial.val_score
    for key, value in measured.items():
        if value is None or _same(value, known.get(key)):
            continue
        step = trial.epochs if key == primary.val_metric else 0
        if key in known:
            step = writer.history([key])[-1].step + 1
        yield MetricPoint(key, float(value), step, now_ms)


def _same(value: float, stored: float | None) -> bool:
    return stored is not None and (value == stored or (math.isnan(value) and math.isnan(stored)))


def _trial(run: RunSummary, scores: tuple[ScoreName, ...]) -> Trial | None:
    """The trial that a run holds; None where it hasn't ended."""
    if Tags.TRIAL_STATE not in run.tags:
        return None
    found: dict[str, float | int | None] = {field: run.metrics.get(key) for field, key in _MEASURED.items()}
    for field in _WHOLE:
        value = found[field]
        found[field] = None if value is None else round(value)
    replaces = run.tags.get(Tags.TRIAL_REPLACES)
    return _TRIAL.validate_python(
        {
            "number": int(run.tags[Tags.TRIAL_NUMBER]),
            "point": json.loads(run.tags[Tags.POINT]),
            "title": run.tags[Tags.TRIAL_TITLE],
            "seed": int(run.tags[Tags.TRIAL_SEED]),
            "state": run.tags[Tags.TRIAL_STATE],
            "run_id": run.run_id,
            "run_name": run.run_name,
            "error": run.tags.get(Tags.ERROR) or None,
            "replaces": None if replaces is None else json.loads(replaces),
            "score": run.metrics.get(scores[0].test_metric),
            "scores": {
                score.key: run.metrics[score.test_metric] for score in scores if score.test_metric in run.metrics
            },
            "val_score": run.metrics.get(scores[0].val_metric),
            **found,
        }
    )
