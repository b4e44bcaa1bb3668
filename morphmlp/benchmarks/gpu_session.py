"""What is measured of the published models where a GPU is lent for minutes: one command after the other.

The most wanted comes first, and each result is kept as soon as it's there: a session that ends early keeps the others.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).parents[2]
PROFILER = ROOT / "pipelines" / "profile_step.py"
_COMPILED = ("--execution.compile", "blocks")
_FUSED = ("--execution.kernels", "triton")
DEMO = "experiments/demo/morphmlp_demo.yaml"
"""What a dry run profiles in the place of every model, without compiling."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One command of a session."""

    name: str
    """Of its result and its trace."""
    config: str
    """Experiment file, from the repository's root."""
    videos: int
    """Of a step, in one micro-batch; two clips each by the published recipe."""
    overrides: tuple[str, ...] = ()
    with_trace: bool = False
    with_bytes: bool = False
    most_s: float = 150.0
    """It is ended then."""

    def command(self, output: Path, *, dry_run: bool) -> list[str]:
        """The command line."""
        real = (self.config, self.videos, self.overrides)
        config, videos, overrides = (DEMO, 2, ()) if dry_run else real
        options = ["--config", str(ROOT / config), "--videos", str(videos), "--json", str(output / f"{self.name}.json")]
        options += ["--steps", "1" if dry_run else "5"]
        if self.with_trace:
            options += ["--trace", str(output / f"{self.name}.trace.json.gz")]
        if not self.with_bytes:
            options.append("--no-bytes")
        return [sys.executable, str(PROFILER), *options, *overrides]


def _model(size: str, frames: int) -> str:
    return f"experiments/k400/morphmlp_{size}_{frames}x4.yaml"


SESSION: tuple[Part, ...] = (
    Part(name="s16-eager", config=_model("s", 16), videos=8, with_trace=True, with_bytes=True),
    Part(name="s16-blocks-cold", config=_model("s", 16), videos=8, overrides=_COMPILED, with_trace=True),
    Part(name="s16-blocks-warm", config=_model("s", 16), videos=8, overrides=_COMPILED),
    Part(name="s16-fused", config=_model("s", 16), videos=8, overrides=_FUSED, with_trace=True),
    Part(name="s16-fused-blocks", config=_model("s", 16), videos=8, overrides=(*_FUSED, *_COMPILED)),
    Part(name="b16-eager", config=_model("b", 16), videos=8),
    Part(name="b16-blocks", config=_model("b", 16), videos=8, overrides=_COMPILED),
    Part(name="s32-eager", config=_model("s", 32), videos=4),
    Part(name="s32-blocks", config=_model("s", 32), videos=4, overrides=_COMPILED, with_trace=True),
    Part(name="b32-eager", config=_model("b", 32), videos=4),
    Part(name="b32-blocks", config=_model("b", 32), videos=4, overrides=_COMPILED),
)
"""In the order of their worth: all of it fits into a quarter of an hour, where compiling takes a minute each."""


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What came of a part."""

    name: str
    fault: str
    """Why there is no result; empty where there is one."""
    wall_s: float
    clips_per_s: float | None = None
    step_s: float | None = None
    first_step_s: float | None = None
    peak_bytes: int | None = None
    device: str = ""


def run_session(
    output: Path,
    *,
    budget_s: float,
    dry_run: bool,
    log: Callable[[str], None],
    parts: Sequence[Part] = SESSION,
) -> list[PartResult]:
    """Run the parts, as many as fit into the time; results, traces and what was said are in `output`.

    Compiled blocks are kept in `output/compiled`, empty at first: the first compiled part is a cold start, the next
    one of the same network a warm one.
    """
    output.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(output.absolute() / "compiled")}
    ends, found = time.monotonic() + budget_s, list[PartResult]()
    for part in parts:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            found.append(PartResult(name=part.name, fault="no time was left", wall_s=0.0))
            continue
        log(f"{part.name}, {left_s:.0f} s left")
        found.append(_run(part, output, environment, most_s=min(left_s, part.most_s), dry_run=dry_run))
    return found


def session_table(found: Sequence[PartResult]) -> str:
    """A line for each part."""
    rows = [
        (
            result.name,
            _number(result.clips_per_s, ".1f"),
            _number(None if result.step_s is None else 1000 * result.step_s, ".1f"),
            _number(result.first_step_s, ".1f"),
            _number(None if result.peak_bytes is None else result.peak_bytes / 2**30, ".2f"),
            f"{result.wall_s:.0f}",
            result.fault,
        )
        for result in found
    ]
    headers = ("part", "clips/s", "step (ms)", "first step (s)", "peak (GiB)", "took (s)", "fault")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 5, "left"))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _run(part: Part, output: Path, environment: Mapping[str, str], *, most_s: float, dry_run: bool) -> PartResult:
    began = time.monotonic()
    fault = ""
    with (output / f"{part.name}.txt").open("w", encoding="utf-8") as said:
        try:
            subprocess.run(
                part.command(output, dry_run=dry_run),
                env=dict(environment),
                cwd=ROOT,
                stdout=said,
                stderr=subprocess.STDOUT,
                check=True,
                timeout=most_s,
            )
        except subprocess.TimeoutExpired:
            fault = f"ended after {most_s:.0f} s"
        except subprocess.CalledProcessError as error:
            fault = f"ended with {error.returncode}, see {part.name}.txt"
    wall_s = time.monotonic() - began
    if fault:
        return PartResult(name=part.name, fault=fault, wall_s=wall_s)
    result: dict[str, Any] = json.loads((output / f"{part.name}.json").read_text(encoding="utf-8"))
    return PartResult(
        name=part.name,
        fault="",
        wall_s=wall_s,
        clips_per_s=result["clips_per_step"] / result["step_s"],
        step_s=result["step_s"],
        first_step_s=result["first_step_s"],
        peak_bytes=result["peak_bytes"],
        device=result["device"],
    )
