"""Stop the demo in every way that a run can be stopped, and check that each ends as if nothing had happened.

    python pipelines/drill.py                                        every stop, at a random step
    python pipelines/drill.py --stops worker-killed,driver-killed    some of them
    python pipelines/drill.py --seed 7 --json drill.json --keep DIR  other steps; result and runs kept

The exit code is 1 where a stop repeats or loses a video, changes the weights, or doesn't happen at all.
"""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from morphmlp.cli import run, write_json
from morphmlp.drill.stop_names import STOP_NAMES
from morphmlp.errors import ConfigError
from morphmlp.targets import json_file

ROOT = Path(__file__).resolve().parents[1]
STEPS = 42


def main() -> None:
    """Drill, and tell how each stop ended."""
    arguments = _parser().parse_args()
    names = arguments.stops.split(",") if arguments.stops else list(STOP_NAMES)
    if unknown := [name for name in names if name not in STOP_NAMES]:
        raise ConfigError([f"--stops: there is no {name!r}; choose from {', '.join(STOP_NAMES)}" for name in unknown])
    if arguments.keep is not None and arguments.keep.exists() and any(arguments.keep.iterdir()):
        raise ConfigError([f"--keep: {arguments.keep} isn't empty; name a new folder"])

    from morphmlp.drill.demo_run import Demo
    from morphmlp.drill.trials import drill_table, run_drill
    from morphmlp.progress import TerminalProgress

    kept = tempfile.TemporaryDirectory(prefix="drill-") if arguments.keep is None else nullcontext(arguments.keep)
    with kept as folder, TerminalProgress() as progress:
        place = Path(folder).absolute()
        demo = Demo(
            script=ROOT / "pipelines" / "train_demo.py",
            config=ROOT / "experiments" / "demo" / "morphmlp_demo.yaml",
            videos=place / "videos",
            steps=arguments.steps,
        )
        result = run_drill(demo, names, place, seed=arguments.seed, progress=progress)
    print(drill_table(result))
    write_json(arguments.json, result)
    if not result.passed:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="drill.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stops", help=f"some of {', '.join(STOP_NAMES)}; by default all")
    parser.add_argument("--seed", type=int, default=0, help="root of the random steps (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="length of a run (default: %(default)s)")
    parser.add_argument("--json", type=json_file, help="write the result as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the runs and what they said in this new folder")
    return parser


if __name__ == "__main__":
    run(main)
