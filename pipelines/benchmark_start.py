"""`benchmark.py start`: how long a user waits for the first training step, and for the first scores of a test."""

from dataclasses import asdict
from pathlib import Path

import click

from morphmlp.cli import A_PATH, COUNT, json_option, parse_overrides, write_json
from morphmlp.errors import ConfigError

DEMO = Path("experiments/demo/morphmlp_demo.yaml")
VIDEOS = Path("build/benchmark-start")
"""Where the demo's videos are kept."""


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Every field of the experiment can be overridden, as in --model.depths 3 4 9 3.",
)
@click.option(
    "--config", type=A_PATH, metavar="FILE", help="experiment file; by default the demo's, on videos made here"
)
@click.option("--rounds", type=COUNT, default=5, help="starts of each command under each condition")
@click.option("--kind", type=click.Choice(["warm", "cold", "both"]), default="both", help="condition")
@click.option("--floor", is_flag=True, help="next to warm starts those of programs without morphmlp, of the same shape")
@click.option("--cpus", type=COUNT, default=4, help="CPUs of the Ray that warm starts join; not with RAY_ADDRESS")
@json_option
@click.argument("fields", nargs=-1, type=click.UNPROCESSED, metavar="[--FIELD VALUE]...")
def start(
    *, config: Path | None, rounds: int, kind: str, floor: bool, cpus: int, json: Path | None, fields: tuple[str, ...]
) -> None:
    """Seconds from typing a command to its first training step and to the first scores of a test, by part."""
    from morphmlp.config import load_config

    experiment = load_config(config or DEMO, parse_overrides(fields, start.params))
    if floor and kind == "cold":
        raise ConfigError(["--floor: is measured next to warm starts; use --kind warm or both"])

    from morphmlp.benchmarks.command_start import BareShape, measure_starts
    from morphmlp.benchmarks.start_tables import KINDS, cpu_tables, floor_tables, starts_table
    from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
    from morphmlp.progress import TerminalProgress

    own: list[str] = []
    if config is None:
        write_demo_dataset(VIDEOS, train=96, val=16, test=16)
        own = [word for name in ("train", "val", "test") for word in (f"--data.{name}", f"{VIDEOS}/{name}.parquet")]
    wanted = {"warm", "cold"} if kind == "both" else {kind}
    kinds = [name for name in KINDS if name in wanted or (name == "bare" and floor)]
    with TerminalProgress() as progress:
        found = measure_starts(
            config or DEMO,
            [*own, *fields],
            kinds=kinds,
            rounds=rounds,
            cpus=cpus,
            bare=BareShape.of(experiment.cluster, cpus=cpus),
            progress=progress,
        )
    print(starts_table(found))
    print(f"medians of {rounds} interleaved rounds of {experiment.name}; each part from the end of the one before it")
    for side in found:
        print(f"\n{cpu_tables(side)}")
    for table in floor_tables(found):
        print(f"\n{table}")
    write_json(json, {"experiment": experiment.name, "rounds": rounds, "starts": [asdict(side) for side in found]})
