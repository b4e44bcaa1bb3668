"""Train and test a MorphMLP at every point of a grid, and compare them.

python pipelines/sweep.py --config experiments/sweeps/demo_chunk_length.yaml
"""

import argparse
import signal
import sys
import time
from pathlib import Path

from morphmlp.cli import parse_overrides, run, write_json
from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig, load_sweep
from morphmlp.errors import ConfigError, SweepError

DEFAULT_CONFIG = "experiments/sweeps/demo_chunk_length.yaml"


def main() -> None:
    """Plan, run, print the table."""
    sweep, run_name, json_path = arguments()

    from morphmlp.tuning.report import plan_text, trial_table
    from morphmlp.tuning.space import expand

    space = expand(sweep, read_yaml(sweep.experiment))
    print(plan_text(space), flush=True)

    from morphmlp.progress import TerminalProgress
    from morphmlp.tuning.ray_sweep import run_sweep

    try:
        with TerminalProgress() as progress:
            result = run_sweep(sweep, space, run_name=run_name, progress=progress)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ray is down, what remains is to say so
        kept = Path(space.points[0].config.cluster.storage) / run_name
        print(f"stopped; what was finished is recorded under {run_name} ({kept})", file=sys.stderr)
        sys.exit(130)
    write_json(json_path, result)
    print(trial_table(result.trials))
    done = len(result.trials) - len(result.failed)
    print(f"{run_name}: {done} trials finished, {result.wall_s:.0f} s, MLflow run {result.parent_run_id}", flush=True)
    if result.failed:
        raise SweepError(
            f"{len(result.failed)} of {len(result.trials)} trials failed: "
            + ", ".join(trial.title for trial in result.failed)
        )


def arguments() -> tuple[SweepConfig, str, Path | None]:
    """The sweep, its run's name, and the file of `--json`."""
    parser = argparse.ArgumentParser(
        description="Train and test a MorphMLP at every point of a grid, and compare them.",
        epilog="Dotted fields of the base experiment can be overridden for all trials, as in --train.epochs 3.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help=f"sweep file; {DEFAULT_CONFIG}")
    parser.add_argument("--run-name", metavar="NAME", help="name of the sweep's run; by default a new one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    known, rest = parser.parse_known_args()
    sweep = load_sweep(known.config, parse_overrides(rest))
    run_name = known.run_name or f"{sweep.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if "/" in run_name or run_name.startswith("."):
        raise ConfigError([f"--run-name: {run_name!r} must be a plain name, without / and leading dots"])
    return sweep, run_name, known.json


if __name__ == "__main__":
    run(main)
