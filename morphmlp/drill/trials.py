"""The drill itself: the demo undisturbed, then once for every stop, each held against the first."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from morphmlp.drill import DrillError
from morphmlp.drill.demo_run import CHECKPOINT_EVERY, Demo, DemoRun, Surroundings, trial_folders
from morphmlp.drill.outcome import (
    ROUNDING,
    Comparison,
    Remains,
    difference,
    doubled_points,
    greatest_loss_difference,
    missing_points,
    remains_of,
)
from morphmlp.drill.stops import (
    ControllerKilled,
    CtrlC,
    DriverKilled,
    FullDisk,
    FullDiskAtEnd,
    HungUp,
    LostLog,
    Stop,
    Terminated,
    TruncatedCheckpoint,
    WorkerKilled,
)
from morphmlp.drill.stops_around import Elastic, MlflowDown, NodeLost, SlowStorage, UploadKilled
from morphmlp.drill.stops_memory import DecodingKilled, HelpersKilled
from morphmlp.errors import MorphMLPError
from morphmlp.progress import Progress

STOPS: Mapping[str, type[Stop]] = {
    stop.name: stop
    for stop in (
        *(WorkerKilled, ControllerKilled, NodeLost, DriverKilled, CtrlC, Terminated, HungUp, LostLog),
        *(FullDisk, FullDiskAtEnd, TruncatedCheckpoint, MlflowDown, SlowStorage, UploadKilled, Elastic),
        *(HelpersKilled, DecodingKilled),
    )
}
"""By name, in the order of the table."""


@dataclass(frozen=True, kw_only=True)
class StopResult:
    """One row of the table; the fields but `stop`, `words` and `at_step` are None where the stop or the run failed."""

    stop: str
    words: str
    at_step: int
    """The step that had begun when it struck."""
    repeated: int | None = None
    """Videos that the final weights saw again in the same epoch."""
    lost: int | None = None
    """Planned videos that they never saw, or saw at another step."""
    weights_equal: bool | None = None
    """And the recorded losses agree to 1e-4."""
    comparison: Comparison | None = None
    """What is called equal."""
    greatest_difference: float | None = None
    """Greatest difference of the model's weights, relative to the greatest of each tensor."""
    greatest_loss_difference: float | None = None
    """Greatest relative difference of a step's recorded loss."""
    seconds: float | None = None
    """Wall time of all commands beyond the undisturbed run's."""
    redone_steps: int | None = None
    doubled_points: int | None = None
    """Losses that the record holds beyond one a step."""
    missing_points: int | None = None
    """Steps of whose losses the record holds none."""
    proof: str = ""
    """What shows that the stop happened."""
    fault: str | None = None
    """Why there is no result."""

    @property
    def passed(self) -> bool:
        """No video repeated or lost, no point of the record doubled or missing, the same weights."""
        wrong = self.repeated or self.lost or self.doubled_points or self.missing_points
        return self.fault is None and not wrong and bool(self.weights_equal)


@dataclass(frozen=True, kw_only=True)
class DrillResult:
    """A whole drill; the JSON of `--json`."""

    stops: tuple[StopResult, ...]
    steps: int
    """Optimiser steps of a run."""
    seed: int
    undisturbed_s: float
    """Wall time of the run that nothing stops, seconds."""

    @property
    def passed(self) -> bool:
        """Every stop left the run as if nothing had happened."""
        return all(stop.passed for stop in self.stops)


def run_drill(demo: Demo, stops: Sequence[str], folder: Path, *, seed: int, progress: Progress) -> DrillResult:
    """Run the demo undisturbed and once for each stop.

    Args:
        demo: What is run.
        stops: Names of `STOPS`.
        folder: Where the runs are written; one folder each.
        seed: Root of all random draws.
        progress: Shows every trial.

    Raises:
        DrillError: The undisturbed run fails, so that there is nothing to compare with.
    """
    demo.make_videos()
    progress.phase("drill", total=len(stops) + 1, unit="runs")
    undisturbed, reference = _run_undisturbed(demo, folder / "undisturbed")
    progress.update(1, f"undisturbed: {undisturbed.seconds:.0f} s")
    progress.line(f"undisturbed: {demo.steps} steps, {undisturbed.seconds:.0f} s")
    results = []
    for result in _trials(demo, stops, folder, reference=reference, undisturbed_s=undisturbed.seconds, seed=seed):
        results.append(result)
        progress.update(len(results) + 1, result.stop)
        how = (
            f"FAILED: {result.fault}" if result.fault else f"{'well' if result.passed else 'NOT WELL'}; {result.proof}"
        )
        progress.line(f"{result.stop} at step {result.at_step}: {how}")
    return DrillResult(stops=tuple(results), steps=demo.steps, seed=seed, undisturbed_s=undisturbed.seconds)


def drill_table(result: DrillResult) -> str:
    """The stops under each other, and what went wrong."""
    rows = [
        [
            stop.words,
            stop.at_step,
            *(("failed", "", "", "", "") if stop.fault else _cells(stop)),
        ]
        for stop in result.stops
    ]
    headers = ["stop", "at step", "videos repeated", "videos lost", "weights equal", "seconds lost", "steps done again"]
    lines = [tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 6))]
    lines += [f"{stop.stop}: {stop.fault}" for stop in result.stops if stop.fault]
    for stop in result.stops:
        if stop.doubled_points:
            lines.append(f"{stop.stop}: the record holds {stop.doubled_points} points twice")
        if stop.missing_points:
            lines.append(f"{stop.stop}: the record lacks the points of {stop.missing_points} steps")
    return "\n".join(lines)


def _cells(stop: StopResult) -> tuple[str, ...]:
    equal = "yes" if stop.weights_equal else f"NO ({stop.greatest_difference:.1e})"
    if stop.weights_equal and stop.greatest_difference:
        equal = f"yes, to {stop.greatest_difference:.0e}"
    return (str(stop.repeated), str(stop.lost), equal, f"{stop.seconds:.0f}", str(stop.redone_steps))


def _run_undisturbed(demo: Demo, folder: Path) -> tuple[DemoRun, Remains]:
    with trial_folders(folder) as temporary:
        run = DemoRun(demo, folder, temporary, Surroundings())
        run.start()
        run.finish()
        remains = remains_of(run)
    faults = {
        "repeated": remains.repeated,
        "lost": remains.lost,
        "done again": remains.redone_steps,
        "points doubled": doubled_points(remains.losses),
        "points missing": missing_points(remains.losses, dict.fromkeys(range(1, demo.steps + 1), ())),
    }
    if any(faults.values()) or remains.checkpoint_steps != demo.steps:
        raise DrillError(f"the undisturbed run isn't right: {faults}, {remains.checkpoint_steps} steps in its weights")
    return run, remains


def _trials(
    demo: Demo, stops: Sequence[str], folder: Path, *, reference: Remains, undisturbed_s: float, seed: int
) -> Iterator[StopResult]:
    for name in stops:
        stop = STOPS[name]()
        rng = random.Random(f"{seed} {name}")
        # A checkpoint may have been written before, and there is time to continue after.
        at_step = rng.randint(CHECKPOINT_EVERY + 1, max(CHECKPOINT_EVERY + 1, int(stop.latest_step * demo.steps)))
        try:
            yield _trial(stop, demo, folder / name, rng, at_step, reference=reference, undisturbed_s=undisturbed_s)
        except MorphMLPError as error:
            yield StopResult(stop=name, words=stop.words, at_step=at_step, fault=" ".join(str(error).split()))


def _trial(
    stop: Stop,
    demo: Demo,
    folder: Path,
    rng: random.Random,
    at_step: int,
    *,
    reference: Remains,
    undisturbed_s: float,
) -> StopResult:
    with trial_folders(folder) as temporary, stop.surroundings(folder, temporary) as surroundings:
        run = DemoRun(demo, folder, temporary, surroundings)
        run.start()
        run.wait_for_step(at_step)
        stop.strike(run, rng)
        if stop.ends_run:
            _continue(run)
        else:
            run.finish()
        remains = remains_of(run)
        proof = stop.proof(run, remains)
    if remains.checkpoint_steps != demo.steps:
        raise DrillError(f"the last checkpoint holds {remains.checkpoint_steps} of {demo.steps} steps")
    found = difference(remains.weights, reference.weights, stop.comparison)
    losses = greatest_loss_difference(remains.losses, reference.losses)
    return StopResult(
        stop=stop.name,
        words=stop.words,
        at_step=at_step,
        repeated=remains.repeated,
        lost=remains.lost,
        weights_equal=found.equal and losses <= ROUNDING,
        comparison=found.comparison,
        greatest_difference=found.greatest,
        greatest_loss_difference=losses,
        seconds=run.seconds - undisturbed_s,
        redone_steps=remains.redone_steps,
        doubled_points=doubled_points(remains.losses),
        missing_points=missing_points(remains.losses, reference.losses),
        proof=proof,
    )


def _continue(run: DemoRun) -> None:
    """The command ends by the stop; the user gives the same one again.

    Raises:
        DrillError: The command ended well, so nothing stopped it; or the second one fails.
    """
    if run.wait_for_end() == 0:
        raise DrillError("the stop never happened: the command ended by itself, with code 0")
    run.start()
    run.finish()
