"""The body of the training pipelines: arguments to result, with Ray started, watched and stopped."""

import signal
import sys
from pathlib import Path

from morphmlp.cli import ExperimentArguments, write_json
from morphmlp.data.train_clips import train_plan
from morphmlp.data_splits import read_splits
from morphmlp.errors import RunStoppedError
from morphmlp.progress import TerminalProgress
from morphmlp.ray_cluster import ray_session
from morphmlp.ray_experiment import ExperimentResult, run_experiment
from morphmlp.targets import require_storage
from morphmlp.training.start_weights import with_checked_weights
from morphmlp.training.stop_signals import NAMES, StopSignals

UNSCORED_SHOWN = 10
"""Test videos without a score that are named on the terminal; the quarantine table holds all."""


def train_pipeline(arguments: ExperimentArguments) -> None:
    """Train, test and record the experiment that the command line names; prints the result."""
    result = train_and_report(arguments)
    print(
        f"{result.run_name}: test top-1 {result.top1:.2f}, top-5 {result.top5:.2f} of {result.num_videos} videos "
        f"({arguments.config.test.in_words}; {result.tested}; {result.num_quarantined} quarantined), "
        f"{result.wall_s:.0f} s, MLflow run {result.run_id}"
    )
    for line in result.unscored[:UNSCORED_SHOWN]:
        print(f"not scored: {line}")
    if len(result.unscored) > UNSCORED_SHOWN:
        print(f"not scored: and {len(result.unscored) - UNSCORED_SHOWN} more, see quarantine.parquet of the run")
    write_json(arguments.json, result)


def train_and_report(arguments: ExperimentArguments) -> ExperimentResult:
    """Run the experiment in a Ray session of its own.

    The first Ctrl-C or SIGTERM makes the workers save and stop; the same command then continues the run.
    """
    config = arguments.config
    require_storage(config, arguments.run_name)
    data = read_splits(config)
    config = with_checked_weights(config, data.train.class_names)  # before Ray starts
    micro_batches = train_plan(config, len(data.train)).micro_batches_per_step
    stops = StopSignals()
    try:
        with (
            TerminalProgress() as progress,
            ray_session(config.cluster, config.ingest, micro_batches=micro_batches) as placement,
            stops.installed(),  # after Ray's own handler of SIGTERM
        ):
            return run_experiment(config, data, placement, run_name=arguments.run_name, progress=progress, stops=stops)
    except (KeyboardInterrupt, RunStoppedError) as stop:
        for signum in NAMES:
            signal.signal(signum, signal.SIG_IGN)  # Ray is down, what remains is to say so
        kept = Path(config.cluster.storage) / arguments.run_name
        how = str(stop) if isinstance(stop, RunStoppedError) else "stopped"
        print(f"{how}; continue with the same command and --run-name {arguments.run_name} ({kept})", file=sys.stderr)
        sys.exit(128 + getattr(stop, "signum", signal.SIGINT))
