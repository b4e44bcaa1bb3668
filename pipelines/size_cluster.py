"""How large a cluster an experiment needs, what it costs, and where more GPUs stop helping.

python pipelines/size_cluster.py --config experiments/k400/morphmlp_s_16x4.yaml --gpus 8 --measured step.json \
    --measure-decode 64 --prices nodes.yaml --write cluster.yaml

Dotted overrides change the experiment, as in training: `--train.global-batch-size 512`. Nothing is launched.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from morphmlp.cli import A_PATH, COUNT, SETTINGS, json_option, parse_overrides, run, write_json
from morphmlp.config import ExperimentConfig, load_config
from morphmlp.errors import ConfigError

if TYPE_CHECKING:
    from morphmlp.sizing.inputs import Costs, Work
    from morphmlp.sizing.measured import Found
    from morphmlp.sizing.nodes import Nodes

POSITIVE = click.FloatRange(min=0, min_open=True)
NOT_NEGATIVE = click.FloatRange(min=0)


@click.command(context_settings=SETTINGS | {"ignore_unknown_options": True})
@click.option("--config", "path", metavar="FILE", help="experiment file")
@click.option("--gpus", type=COUNT, default=8, help="GPUs to size for")
@click.option("--videos", type=COUNT, help="training videos; by default those of the manifest")
@click.option("--val-videos", type=COUNT, help="validation videos; by default those of the manifest")
@click.option("--video-mb", type=POSITIVE, help="mean size of a video's file, MB; by default as in the manifest")
@click.option(
    "--step-s",
    multiple=True,
    metavar="[CLIPS=]SECONDS",
    help="measured seconds of a micro-batch on one GPU, by default of the experiment's clips; two sizes make a line",
)
@click.option(
    "--decode-ms", type=POSITIVE, help="measured CPU milliseconds of a training clip, by a decoder alone on its node"
)
@click.option(
    "--measure-decode", type=COUNT, metavar="VIDEOS", help="decode so many training videos now, and take that"
)
@click.option(
    "--measured",
    multiple=True,
    metavar="SOURCE",
    help="JSON file of benchmark.py train-step, step-variants, ingest or busy-cores, or a run in MLflow; by default "
    "the experiment's newest finished run there",
)
@click.option("--prices", type=A_PATH, metavar="FILE", help="node types with prices and network (docs/sizing.md)")
@click.option("--write", type=A_PATH, metavar="FILE", help="cluster file to write the node counts into")
@click.option("--scale", is_flag=True, help="simulate 8 to 1,024 GPUs instead; needs --prices")
@click.option("--figure", type=A_PATH, metavar="FILE", help="with --scale: draw it, as .png or .svg")
@click.option(
    "--check",
    type=A_PATH,
    multiple=True,
    metavar="FOLDER",
    help="instead, on the machine where they ran on CPUs: compare the simulation with a real run, by its folder",
)
@click.option(
    "--by",
    type=A_PATH,
    metavar="FOLDER",
    help="with --check: the run by whose costs to simulate; by default each by its own",
)
@click.option(
    "--decode-budget",
    type=POSITIVE,
    multiple=True,
    metavar="CLIPS/S",
    help="instead: decode cores of one GPU that takes so many clips a second, by --measured of benchmark.py ingest",
)
@click.option(
    "--step-variation", type=NOT_NEGATIVE, default=0.0, help="a micro-batch's standard deviation over its mean"
)
@click.option("--decode-variation", type=NOT_NEGATIVE, default=0.0, help="the same of a decode task")
@click.option("--restart-s", type=NOT_NEGATIVE, default=0.0, help="from a lost node to the next step, seconds")
@click.option("--stall-s", type=NOT_NEGATIVE, default=0.0, help="what a checkpoint delays training by, seconds")
@json_option
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    path: str | None,
    videos: int | None,
    val_videos: int | None,
    video_mb: float | None,
    prices: Path | None,
    json: Path | None,
    rest: tuple[str, ...],
    **_: object,
) -> None:
    """How large a cluster an experiment needs, by costs that were measured; nothing is launched."""
    asked = context.params
    _refuse_what_does_not_fit(asked)
    if asked["check"]:
        write_json(json, _check(asked))
        return
    if asked["decode_budget"]:
        write_json(json, _budget(asked))
        return
    overrides = parse_overrides(rest, context.command.params)
    if path is None:
        raise ConfigError(["--config FILE: is missing; it names the experiment to size a cluster for"])
    config = load_config(path, overrides)
    from morphmlp.sizing.inputs import work_of
    from morphmlp.sizing.measured import known
    from morphmlp.sizing.nodes import Nodes

    nodes = None if prices is None else Nodes.read(prices)
    work = work_of(config, videos=videos, val_videos=val_videos)
    if video_mb is not None:
        work = replace(work, file_bytes=video_mb * 1e6)
    found = _found(config, clips=work.micro_batch * work.clips_per_video, asked=asked)
    costs = found.costs(config)
    result = _simulate(work, costs, nodes, asked) if asked["scale"] and nodes else _size(work, costs, nodes, asked)
    write_json(json, {"inputs": known(found), **result})


def _refuse_what_does_not_fit(asked: Mapping[str, Any]) -> None:
    figure = asked["figure"]
    faults = [
        f"{option}: needs --prices, which describes the node types"
        for option, wanted in (("--write", asked["write"] is not None), ("--scale", asked["scale"]))
        if wanted and asked["prices"] is None
    ]
    if figure is not None and not asked["scale"]:
        faults.append("--figure: draws what --scale simulates; add that")
    if figure is not None and figure.suffix not in (".png", ".svg"):
        faults.append(f"--figure {figure}: isn't .png or .svg")
    check = asked["check"]
    if check and len(asked["measured"]) not in (1, 2):
        faults.append(
            "--check FOLDER: needs --measured FILE, by `benchmark.py shared-cores --json FILE`, and takes another by "
            "`busy-cores`"
        )
    if asked["by"] and not check:
        faults.append("--by FOLDER: names by whose costs --check simulates a run; add that")
    if check and (asked["path"] is not None or asked["rest"]):
        faults.append(f"--check {check[0]}: the run has its own experiment; leave --config and its fields out")
    if asked["decode_budget"] and len(asked["measured"]) != 1:
        faults.append("--decode-budget CLIPS/S: needs --measured FILE, by `benchmark.py ingest --json FILE`")
    if faults:
        raise ConfigError(faults)


def _size(work: "Work", costs: "Costs", nodes: "Nodes | None", asked: Mapping[str, Any]) -> dict[str, Any]:
    """Print the size, and write it into a cluster file where one was named."""
    from morphmlp.sizing.arithmetic import remarks, size_cluster
    from morphmlp.sizing.cluster_file import write_node_counts
    from morphmlp.sizing.table import size_table

    size = size_cluster(work, costs, gpus=asked["gpus"], nodes=nodes)
    print(size_table(size, work, costs, nodes))
    for line in remarks(size, work, costs, nodes):
        print(line)
    if asked["write"] is not None and size.train_nodes is not None and size.ingest_nodes is not None:
        write_node_counts(asked["write"], {"train": size.train_nodes, "ingest": size.ingest_nodes})
        print(f"{asked['write']}: {size.train_nodes} train, {size.ingest_nodes} ingest")
    return {**asdict(size), "cores": size.cores}


def _simulate(work: "Work", costs: "Costs", nodes: "Nodes", asked: Mapping[str, Any]) -> dict[str, Any]:
    """Print the table over numbers of GPUs, and draw it where a file was named."""
    from morphmlp.sizing.scale import Assumed, scale_figure, scale_table, simulate_all

    names = ("step_variation", "decode_variation", "restart_s", "stall_s")
    assumed = Assumed(**{name: asked[name] for name in names})
    cells = simulate_all(work, costs, nodes=nodes, assumed=assumed, log=lambda line: print(line, file=sys.stderr))
    print(scale_table(cells, currency=nodes.currency))
    if (figure := asked["figure"]) is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        scale_figure(cells).savefig(figure)
    return {"cells": [asdict(cell) for cell in cells]}


def _check(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Print how far the simulation is from each run."""
    from morphmlp.sizing.check import Machine, Run, check_run, check_table, costs_by

    machine = Machine.read(*map(Path, asked["measured"]))
    known = asked["by"] and Run.read(asked["by"])
    runs = [Run.read(folder) for folder in asked["check"]]
    checks = [check_run(run, costs_by(known, run, machine), machine) for run in runs]
    print(check_table(checks))
    return {"machine": asdict(machine), "runs": [{**asdict(one), "error": one.error} for one in checks]}


def _budget(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Print decode cores by stored form and by clips a second of a GPU."""
    from morphmlp.sizing.budget import budget_table, decode_budget

    rates = asked["decode_budget"]
    budgets = decode_budget(Path(asked["measured"][0]), clips_per_s=rates)
    print(budget_table(budgets, clips_per_s=rates))
    return {"clips_per_s": list(rates), "budgets": [asdict(budget) for budget in budgets]}


def _found(config: ExperimentConfig, *, clips: int, asked: Mapping[str, Any]) -> "Found":
    """Costs from all that was named, and from the record where something is missing then."""
    from morphmlp.sizing import measured

    found = measured.Found()
    measured.add_options(found, steps=asked["step_s"], decode_ms=asked["decode_ms"], clips=clips)
    for source in asked["measured"]:
        if Path(source).suffix == ".json":
            measured.add_file(found, Path(source), config)
        else:
            measured.add_run(found, config, name=source)
    if asked["measure_decode"] is not None:
        measured.measure_decode(found, config, videos=asked["measure_decode"])
    if not found.steps or found.decode_s is None:
        measured.add_run(found, config, name=None)
    return found


if __name__ == "__main__":
    run(main)
