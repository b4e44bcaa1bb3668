"""Measure what a user can't see from the outside; every figure is a ratio from interleaved rounds."""

import argparse
import sys
from pathlib import Path

from morphmlp.cli import run, write_json


def main() -> None:
    """Run the measurement that the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser("train-step", help="a training step under Ray Train against a bare process")
    step.add_argument("--config", default="experiments/demo/morphmlp_demo.yaml", help="experiment file")
    step.add_argument("--rounds", type=int, default=20, help="pairs of rounds (default: %(default)s)")
    step.add_argument("--json", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    train_step(arguments.config, rounds=arguments.rounds, json=arguments.json)


def train_step(config_path: str, *, rounds: int, json: Path | None) -> None:
    """Compare a training step under Ray Train with the same loop in a bare process."""
    from morphmlp.benchmarks.ray_train_step import compare_train_step
    from morphmlp.config import load_config
    from morphmlp.ray_cluster import ray_session

    config = load_config(config_path, {"cluster.num_workers": 1})
    print(f"{rounds} pairs of rounds with {config_path}, one worker", file=sys.stderr)
    with ray_session(config.cluster, config.ingest, micro_batches=1) as placement:
        result = compare_train_step(config, placement, rounds=rounds)
    print(
        f"a step under Ray Train takes {result.ratio:.3f} times the bare loop's "
        f"({1000 * result.ray_step_s:.1f} ms against {1000 * result.bare_step_s:.1f} ms on {result.device}, "
        f"medians of {result.rounds} interleaved rounds of {result.steps_per_round} steps, one report each)"
    )
    write_json(json, result)


if __name__ == "__main__":
    run(main)
