"""Train and test a MorphMLP at the points of a space, and compare them.

python pipelines/sweep.py --config experiments/sweeps/demo_chunk_length.yaml
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import JsonValue

from morphmlp.cli import SETTINGS, json_option, parse_overrides, run, write_json
from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig, load_sweep
from morphmlp.errors import ConfigError, RunStoppedError, SweepError
from morphmlp.stop_signals import StopSignals, signal_of
from morphmlp.targets import plain_name, require_storage
from morphmlp.tuning.run.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from morphmlp.tuning.space.space import Space

DEFAULT_CONFIG = "experiments/sweeps/demo_chunk_length.yaml"
DEFAULT_STORAGE = "runs"
PUBLISHED = Path(__file__).parents[1] / "experiments" / "published.yaml"


@click.command(
    context_settings={**SETTINGS, "ignore_unknown_options": True},
    epilog="Dotted fields of the base experiment can be overridden for all trials, as in --train.epochs 3.",
)
@click.option("--config", default=DEFAULT_CONFIG, metavar="FILE", help="sweep file")
@click.option("--run-name", metavar="NAME", help="name of the sweep's run; by default a new one")
@json_option
@click.option("--plan", is_flag=True, help="print the points with what they cost, and start nothing")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="continue a sweep that was stopped: the name of its run, or its folder (by default --run-name)",
)
@click.option("--retry-failed", is_flag=True, help="with --resume: run trials again that ended with an error")
@click.argument("fields", nargs=-1, type=click.UNPROCESSED, metavar="[--FIELD VALUE]...")
@click.pass_context
def main(
    context: click.Context,
    *,
    config: str,
    run_name: str | None,
    json: Path | None,
    plan: bool,
    resume: str | None,
    retry_failed: bool,
    fields: tuple[str, ...],
) -> None:
    """Train and test a MorphMLP at the points of a space, and compare them."""
    if resume == "" and not run_name:
        raise ConfigError(["--resume: name the sweep's run, as in --resume demo-chunk-length-20260102-030405"])
    if retry_failed and resume is None:
        raise ConfigError(["--retry-failed: goes with --resume"])
    overrides = parse_overrides(fields, context.command.params)
    if resume is not None:
        folder = _stopped_sweep(resume or str(run_name), overrides)
        sweep, base = folder.read()
        space = _planned(sweep, base)
    else:
        sweep = load_sweep(config, overrides)
        base = read_yaml(sweep.experiment)
        space = _planned(sweep, base)
        folder = _folder(space, run_name or f"{sweep.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if not plan:
        _run(sweep, base, space, folder, json=json, resume=resume is not None, retry_failed=retry_failed)


def _run(
    sweep: SweepConfig,
    base: dict[str, JsonValue],
    space: "Space",
    folder: SweepFolder,
    *,
    json: Path | None,
    resume: bool,
    retry_failed: bool,
) -> None:
    from morphmlp.progress import TerminalProgress
    from morphmlp.reporting.tables.published import load_published
    from morphmlp.tuning.report.summary import trial_table
    from morphmlp.tuning.run.ray_sweep import run_sweep

    name = folder.root.name
    stops = StopSignals()
    try:
        with stops.installed(), TerminalProgress() as progress:
            result = run_sweep(
                sweep,
                base,
                space,
                folder,
                progress=progress,
                stops=stops,
                resume=resume,
                retry_failed=retry_failed,
                published=load_published(PUBLISHED).ablations,
            )
    except KeyboardInterrupt as stop:
        raise RunStoppedError(
            f"stopped; continue with python pipelines/sweep.py --resume {folder.root}", signum=signal_of(stop)
        ) from None
    write_json(json, result)
    print(trial_table(result))
    done = sum(trial.state == "finished" for trial in result.trials)
    print(
        f"{name}: {done} of {len(result.trials)} trials finished, {result.wall_s:.0f} s, "
        f"MLflow run {result.parent_run_id}; report {folder.root / 'sweep_report.html'}",
        flush=True,
    )
    if result.failed:
        raise SweepError(
            f"{len(result.failed)} of {len(result.trials)} trials failed: "
            + ", ".join(dict.fromkeys(trial.title for trial in result.failed))
        )


def _planned(sweep: SweepConfig, base: dict[str, JsonValue]) -> "Space":
    """The points, printed."""
    from morphmlp.tuning.space.plan import known_speed, num_videos, plan_text
    from morphmlp.tuning.space.space import expand

    space = expand(sweep, base)
    config = space.points[0].config
    text = plan_text(space, sweep, speed=known_speed(config.dataset), videos=num_videos(config.data.train))
    print(text, flush=True)
    return space


def _folder(space: "Space", run_name: str) -> SweepFolder:
    config = space.points[0].config
    require_storage(config, plain_name(run_name))
    return SweepFolder(root=Path(config.cluster.storage) / run_name)


def _stopped_sweep(name: str, overrides: dict[str, JsonValue]) -> SweepFolder:
    """The folder that `--resume` means: a folder, or the name of a run in the default storage."""
    if overrides:
        raise ConfigError([f"{', '.join(overrides)}: a sweep is resumed as it began, without other values"])
    return SweepFolder(root=Path(name) if Path(name).is_dir() else Path(DEFAULT_STORAGE) / name)


if __name__ == "__main__":
    run(main, long=True)
