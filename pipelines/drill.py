"""Stop the demo in every way that a run can be stopped, and check that each ends as if nothing had happened.

    python pipelines/drill.py                                        every stop, at a random step
    python pipelines/drill.py --stops worker-killed,driver-killed    some of them
    python pipelines/drill.py --seed 7 --json drill.json --keep DIR  other steps; result and runs kept

The exit code is 1 where a stop repeats or loses a video or a point of the record, changes the weights, or doesn't
happen at all.
"""

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import click

from morphmlp.cli import A_PATH, COUNT, SETTINGS, json_option, run, write_json
from morphmlp.drill import STOP_NAMES
from morphmlp.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
STEPS = 42


@click.command(context_settings=SETTINGS)
@click.option("--stops", metavar="NAME,...", help=f"some of {', '.join(STOP_NAMES)}; by default all")
@click.option("--seed", type=int, default=0, help="root of the random steps")
@click.option("--steps", type=COUNT, default=STEPS, help="length of a run")
@click.option("--keep", type=A_PATH, metavar="DIR", help="keep the runs and what they said in this new folder")
@json_option
def main(stops: str | None, seed: int, steps: int, keep: Path | None, json: Path | None) -> None:
    """Stop the demo in every way that a run can be stopped, and check that each ends as if nothing had happened."""
    names = stops.split(",") if stops else list(STOP_NAMES)
    if unknown := [name for name in names if name not in STOP_NAMES]:
        raise ConfigError([f"--stops: there is no {name!r}; choose from {', '.join(STOP_NAMES)}" for name in unknown])
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ConfigError([f"--keep: {keep} isn't empty; name a new folder"])

    from morphmlp.drill.demo_run import Demo
    from morphmlp.drill.trials import drill_table, run_drill
    from morphmlp.progress import TerminalProgress

    kept = tempfile.TemporaryDirectory(prefix="drill-") if keep is None else nullcontext(keep)
    with kept as folder, TerminalProgress() as progress:
        place = Path(folder).absolute()
        demo = Demo(
            script=ROOT / "pipelines" / "train_demo.py",
            config=ROOT / "experiments" / "demo" / "morphmlp_demo.yaml",
            videos=place / "videos",
            steps=steps,
        )
        result = run_drill(demo, names, place, seed=seed, progress=progress)
    print(drill_table(result))
    write_json(json, result)
    if not result.passed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
