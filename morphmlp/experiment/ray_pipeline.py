"""The body of the training pipelines: arguments to result, with Ray started, watched and stopped."""

import shlex
from pathlib import Path

from morphmlp.cli import ExperimentArguments, write_json
from morphmlp.cluster.address import require_named_cluster
from morphmlp.cluster.ray_cluster import ray_session
from morphmlp.config import ExperimentConfig
from morphmlp.data.stream.plan import TrainPlan
from morphmlp.errors import CheckpointError, QuarantineLimitError, RunStoppedError
from morphmlp.experiment.data_splits import read_splits
from morphmlp.experiment.ray_experiment import run_experiment
from morphmlp.experiment.result import ExperimentResult
from morphmlp.experiment.run_claim import require_free
from morphmlp.progress import TerminalProgress
from morphmlp.start_marks import Part, StartMarks
from morphmlp.stop_signals import NAMES, StopSignals, signal_of
from morphmlp.targets import require_storage
from morphmlp.tasks.factory import task_of
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.weights.choose import extending, starting_from
from morphmlp.training.weights.start import with_checked_weights

UNSCORED_SHOWN = 10
"""Test videos without a score that are named on the terminal; the quarantine table holds all."""


def train_pipeline(arguments: ExperimentArguments) -> None:
    """Train, test and record the experiment that the command line names; prints the result."""
    config, result = arguments.config, train_and_report(arguments)
    print(result.in_words(config.test_in_words, task_of(config).scores))
    for line in result.unscored[:UNSCORED_SHOWN]:
        print(f"not scored: {line}")
    if len(result.unscored) > UNSCORED_SHOWN:
        print(f"not scored: and {len(result.unscored) - UNSCORED_SHOWN} more, see quarantine.parquet of the run")
    if config.train.max_steps is None:  # tables leave the others out
        print(f"next to earlier runs: python pipelines/tables.py --dataset {shlex.quote(config.dataset)}")
    write_json(arguments.json, result)


def train_and_report(arguments: ExperimentArguments) -> ExperimentResult:
    """Run the experiment in a Ray session of its own.

    A first signal makes the workers save and stop; the same command then continues the run.

    Raises:
        RunStoppedError: By a signal, or a request in the run's folder; it says how to continue.
        QuarantineLimitError: Too many videos are broken; it says how to continue as well.
    """
    config, marks = arguments.config, StartMarks.of_command()
    if arguments.start_from is not None:
        config = starting_from(config, arguments.start_from, print)
    elif arguments.extend is not None:
        config = extending(config, arguments.extend, print)
    require_named_cluster()
    require_storage(config, arguments.run_name)
    data = read_splits(config)
    config = with_checked_weights(config, data.train.class_names)  # before Ray starts
    require_free(config, data, arguments.run_name)
    micro_batches = TrainPlan.of(config.train, num_videos=len(data.train)).micro_batches_per_step
    marks.mark(Part.CHECKS)
    stops = StopSignals()
    kept = Path(config.cluster.storage) / arguments.run_name
    again = f"the same command and --run-name {arguments.run_name} ({kept})"
    try:
        with stops.installed(), TerminalProgress() as progress:
            progress.line(f"{arguments.run_name}: {len(data.train)} training {data.train.items}; starting Ray")
            with ray_session(config.cluster, config.ingest, micro_batches=micro_batches) as placement:
                marks.mark(Part.RAY)
                return run_experiment(
                    config, data, placement, run_name=arguments.run_name, progress=progress, stops=stops, marks=marks
                )
    except (KeyboardInterrupt, RunStoppedError) as stop:
        how = str(stop) if isinstance(stop, RunStoppedError) else f"stopped by {NAMES[signal_of(stop)]}"
        how = f"{how}; continue with {again}{_saved(config, RunFolder(kept))}"
        raise RunStoppedError(how, signum=signal_of(stop)) from None
    except QuarantineLimitError as error:
        raise QuarantineLimitError(f"{error}; then continue with {again}") from None


def _saved(config: ExperimentConfig, folder: RunFolder) -> str:
    """From where a run would continue, as the end of a line; empty where that can't be seen."""
    try:
        stored = run_store(config.checkpoint, folder).stored()
    except CheckpointError:
        return ""
    return f"; the checkpoint of step {stored[-1].facts.step} is saved" if stored else ""
