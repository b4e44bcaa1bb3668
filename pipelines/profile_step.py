"""Where the time of a training step goes: a trace for Chrome or Perfetto, and a table by part of the network.

    python pipelines/profile_step.py --config experiments/k400/morphmlp_s_16x4.yaml
    python pipelines/profile_step.py --config FILE --videos 8 --execution.compile blocks --trace trace.json.gz

Steps are those of a run, on clips in memory: nothing is decoded and no data is needed. The trace opens in
https://ui.perfetto.dev or chrome://tracing. (A script named `profile.py` would stand in for Python's own module of
that name in every command of this folder.)
"""

import sys
from dataclasses import asdict
from pathlib import Path

import click
from pydantic import JsonValue

from morphmlp.cli import A_PATH, COUNT, SETTINGS, json_option, parse_overrides, run, write_json
from morphmlp.config import load_config
from morphmlp.errors import ConfigError


@click.command(
    context_settings={**SETTINGS, "ignore_unknown_options": True},
    epilog="Every field of the experiment can be overridden, as in --execution.compile blocks.",
)
@click.option("--config", type=A_PATH, required=True, metavar="FILE", help="experiment file")
@click.option("--videos", type=COUNT, help="videos of a step, in one micro-batch; by default the experiment's")
@click.option("--steps", type=COUNT, default=3, help="steps that are profiled, after three that aren't")
@click.option("--threads", type=COUNT, default=1, help="threads on CPUs")
@click.option("--trace", type=A_PATH, metavar="FILE", help="write the trace there, .json or .json.gz")
@click.option("--bytes/--no-bytes", "with_bytes", default=True, help="count bytes too; of compiled blocks in minutes")
@json_option
@click.argument("fields", nargs=-1, type=click.UNPROCESSED, metavar="[--FIELD VALUE]...")
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    config: Path,
    videos: int | None,
    steps: int,
    threads: int,
    trace: Path | None,
    with_bytes: bool,
    json: Path | None,
    fields: tuple[str, ...],
) -> None:
    """Profile a training step by part of the network: time, bytes by the model, share of what the device reaches."""
    overrides: dict[str, JsonValue] = parse_overrides(fields, context.command.params)
    if videos is not None:
        overrides |= {f"train.{size}_batch_size": videos for size in ("global", "micro")} | {"cluster.num_workers": 1}
    experiment = load_config(config, overrides)
    if trace is not None and not trace.name.endswith((".json", ".json.gz")):
        raise ConfigError([f"--trace: {trace} must end in .json or .json.gz"])

    import torch

    from morphmlp.benchmarks.step_profile import profile_step, profile_table

    torch.set_num_threads(threads)
    found = profile_step(
        experiment,
        steps=steps,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        trace=trace,
        log=lambda line: print(line, file=sys.stderr),
        with_bytes=with_bytes,
    )
    print(profile_table(found))
    peaks = found.peaks
    print(
        f"{experiment.name}, {found.clips_per_step} clips a step on {found.device}: {1000 * found.step_s:.1f} ms "
        f"({found.clips_per_step / found.step_s:.1f} clips/s), with the profiler {1000 * found.profiled_s:.1f} ms; a "
        f"copy reaches {peaks.bytes_per_s / 1e9:.0f} GB/s, a {peaks.precision} product "
        f"{peaks.flops_per_s / 1e12:.2f} TFLOP/s; bytes are counted, not measured"
    )
    if trace is not None:
        print(f"trace: {trace}")
    write_json(json, asdict(found))


if __name__ == "__main__":
    run(main)
