"""The schema of a sweep file: a base experiment, a space of values for its fields, and how the space is searched.

A sweep point is what a command-line override is: a mapping from dotted fields to values. Which points
can run at all is asked of the experiment's own schema, in `morphmlp.tuning.space.space`.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.faults import all_fields, unknown_field, value_fields
from morphmlp.config.loading import read_yaml, to_yaml, validated
from morphmlp.config.schema import ExperimentConfig
from morphmlp.config.values import (
    STRICT,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Unit,
    name_faults,
)

FIXED = ("name", "dataset", "execution", "checkpoint", "ingest", "cluster", "record")
"""Fields and sections that all trials share: they name the record, or place the trials on the cluster."""
SEED = "train.seed"
SCHEDULE = (
    "optim.lr",
    "optim.min_lr",
    "optim.warmup_lr",
    "optim.weight_decay",
    "optim.clip_norm",
    "mixing.mixup",
    "mixing.cutmix",
    "mixing.label_smoothing",
    "mixing.prob",
    "mixing.switch_prob",
)
"""Fields that may change in the middle of a training: no weight and no clip depends on them."""
MOST_COMBINATIONS = 1_000_000
"""Most combinations of a grid, all of which are looked at before anything starts."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: int | float
    high: int | float
    log: bool = False
    """Spread evenly over orders of magnitude."""
    step: int | float | None = None
    """Distance of neighbours; null: 1 where both ends are whole numbers, else any number."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        faults = []
        if self.low >= self.high:
            faults.append(f"low is {self.low}; it must be less than high {self.high}")
        if self.log and self.low <= 0:
            faults.append(f"low is {self.low}; with log it must be above 0")
        if self.step is not None and (self.step <= 0 or self.log):
            faults.append(f"step is {self.step}; it must be above 0, and has no meaning with log")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    @property
    def count(self) -> int | None:
        """How many numbers it has; None where a range is continuous."""
        step = self._distance
        return None if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1

    def number(self, index: int) -> int | float:
        """Its number of this index, from 0 to `count` - 1."""
        number = self.low + index * (self._distance or 0)
        return number if isinstance(number, int) else float(f"{number:.12g}")  # 0.3 where sums give 0.30000000000000004

    def listed(self) -> tuple[int | float, ...] | None:
        """All its numbers; None where a range is continuous."""
        return None if self.count is None else tuple(map(self.number, range(self.count)))

    @property
    def _distance(self) -> int | float | None:
        return self.step or (1 if self.is_whole and not self.log else None)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridSearch:
    """Every combination of the space's values; ranges need a `step`."""

    kind: Literal["grid"] = "grid"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RandomSearch:
    """Points drawn from the space, each once."""

    kind: Literal["random"]
    num_points: PositiveInt
    """Points that can run; impossible draws don't count."""
    seed: NonNegativeInt = 0
    """Root of the random draws. Change it for other points from the same space."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptunaSearch:
    """Points proposed by Optuna's tree-structured Parzen estimator from the results so far."""

    kind: Literal["optuna"]
    num_points: PositiveInt
    """Points that run; impossible proposals don't count."""
    seed: NonNegativeInt = 0
    """Root of the random proposals. Change it for another search of the same space."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PopulationSearch:
    """Trainings side by side, of which the worst exploit the best: they copy weights and changed schedule fields.

    After Jaderberg et al., Population Based Training of Neural Networks, 2017, with truncation selection.
    """

    kind: Literal["population"]
    size: int = Field(ge=2)
    """Members; all of them train at the same time."""
    every_epochs: PositiveInt = 1
    """Epochs between two looks of a member at the others."""
    every_steps: PositiveInt | None = None
    """The same where the members' length is in steps (`train.steps`); null: a look at each validation."""
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the members that counts as the best, and as the worst."""
    seed: NonNegativeInt = 0
    """Root of the first points and of all changes."""


Search = Annotated[GridSearch | RandomSearch | OptunaSearch | PopulationSearch, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoScheduler:
    """Every trial trains to its end."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Asha:
    """Asynchronous successive halving: a point behind the others that came as far is given up, with all its seeds."""

    kind: Literal["asha"]
    grace_epochs: PositiveInt = 1
    """Epochs that every trial gets."""
    grace_steps: PositiveInt | None = None
    """The same where the trials' length is in steps (`train.steps`); null: those up to the first validation."""
    reduction_factor: float = Field(default=3.0, gt=1)
    """One of so many points that reach an epoch continues; those looked at are `grace_epochs` times its powers."""


Scheduler = Annotated[NoScheduler | Asha, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BudgetConfig:
    """Bounds of what a point may cost, both ends included; a point outside is left out, or brought inside."""

    gmacs: tuple[NonNegativeFloat, PositiveFloat] | None = None
    """Billion multiply-accumulates of one view."""
    params: tuple[NonNegativeFloat, PositiveFloat] | None = None
    """Millions of parameters."""
    latency_ms: tuple[NonNegativeFloat, PositiveFloat] | None = None
    """Milliseconds of a forward pass of one view, measured where the sweep is started."""
    adjust: Literal["depths", "embed_dims"] | None = None
    """Bring points outside of the bounds inside by more or fewer blocks, or wider or narrower stages; null: they are
    left out."""

    @model_validator(mode="after")
    def _bounds_ascend(self) -> Self:
        bounds = {"gmacs": self.gmacs, "params": self.params, "latency_ms": self.latency_ms}
        faults = [
            f"{name} is [{bound[0]}, {bound[1]}]; the first number must not exceed the second"
            for name, bound in bounds.items()
            if bound is not None and bound[0] > bound[1]
        ]
        if self.adjust is not None and self.gmacs is None and self.params is None:
            faults.append(f"adjust is {self.adjust} without gmacs or params; name the bounds that it shall meet")
        if faults:
            raise ValueError("\n".join(faults))
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepConfig:
    """One sweep: one YAML file, one parent run with a run per trial."""

    name: str
    """Name of the sweep; runs are named after it."""
    experiment: str
    """File of the base experiment, relative to the working directory."""
    overrides: dict[str, JsonValue]
    """Dotted fields of the base experiment with the value that they have in every trial. What a trial may use of the
    cluster is set here: `cluster.num_workers`, `cluster.cpus_per_worker`, `ingest.cpus`."""
    space: dict[str, tuple[JsonValue, ...] | Range]
    """Dotted fields with the values that they take, a list or a range. In a grid the last field varies first."""
    search: Search = field(default_factory=GridSearch)
    """How points are chosen from the space."""
    scheduler: Scheduler = field(default_factory=NoScheduler)
    """Which trials are stopped early."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Every point trains once with each of these as `train.seed`."""
    impossible: Literal["leave_out", "nearest"] = "leave_out"
    """What becomes of points that break a shape rule: listed and left out, or replaced by the nearest possible one."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    max_concurrent_trials: PositiveInt = 1
    """Trials that run at the same time."""
    max_trial_minutes: PositiveFloat | None = None
    """A trial that takes longer is stopped, and reported as such; null: none is."""
    keep_checkpoints: Literal["winners", "all"] = "winners"
    """Whose checkpoints stay: those of the winners and of trials that didn't come to an end (failed, out of time), or
    of all. Those of trials that were given up or diverged go at once, the others when the sweep is done."""
    share_clips: bool = True
    """Decode each training and validation clip once for all trials that need the same one."""
    clip_cache_gb: PositiveFloat = 20.0
    """With `share_clips`: most that the decoded clips take up on disk; the least recently used go."""

    @property
    def num_points(self) -> int | None:
        """Points that the search needs; None: as many as the space has."""
        return getattr(self.search, "size", None) or getattr(self.search, "num_points", None)

    @property
    def num_combinations(self) -> int | None:
        """Points of the whole space, possible or not; None where a range is continuous."""
        counts = [values.count if isinstance(values, Range) else len(values) for values in self.space.values()]
        known = [count for count in counts if count is not None]
        return math.prod(known) if len(known) == len(counts) else None

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if faults := [
            *name_faults(self.name),
            *(_unknown("overrides", name) for name in self.overrides if name not in known_fields()),
            *_space_faults(self),
            *_seed_faults(self),
            *_population_faults(self),
        ]:
            raise ValueError("\n".join(faults))
        return self


def load_sweep(path: str | Path, overrides: Mapping[str, JsonValue] | None = None) -> SweepConfig:
    """Read a sweep file; dotted overrides of the base experiment are put over the file's own.

    Raises:
        ConfigError: All faults of file and overrides together, each led by its dotted path.
    """
    content = read_yaml(path)
    own = content.get("overrides")
    if overrides and (own is None or isinstance(own, dict)):
        content["overrides"] = {**(own or {}), **overrides}
    return validated(SweepConfig, content)


def sweep_to_yaml(sweep: SweepConfig) -> str:
    """The resolved sweep as YAML that `load_sweep` reads back to an equal value."""
    return to_yaml(TypeAdapter(SweepConfig).dump_python(sweep, mode="json"))


def unit_faults(sweep: SweepConfig, unit: Unit) -> list[str]:
    """Fields of a sweep that count in the other unit than its trials' length, a line each."""
    found: list[tuple[str, int | None, int | None]] = []
    if isinstance(sweep.search, PopulationSearch):
        found.append(("search.every", sweep.search.every_epochs, sweep.search.every_steps))
    if isinstance(sweep.scheduler, Asha):
        found.append(("scheduler.grace", sweep.scheduler.grace_epochs, sweep.scheduler.grace_steps))
    faults = []
    for name, epochs, steps in found:
        if unit == "step" and epochs != 1:
            faults.append(f"{name}_epochs: is {epochs}; trials of a length in steps (train.steps) take {name}_steps")
        if unit == "epoch" and steps is not None:
            faults.append(f"{name}_steps: is {steps}; trials of a length in epochs (train.epochs) take {name}_epochs")
    return faults


def known_fields() -> frozenset[str]:
    """Every dotted field of an experiment."""
    return value_fields(ExperimentConfig)


def _unknown(where: str, name: str) -> str:
    fields = all_fields(ExperimentConfig)
    if name in fields:
        return f"{where}.{name}: is a section; name its fields, as in {name}.FIELD"
    return unknown_field(name, fields, where=f"{where}.")


def _space_faults(sweep: SweepConfig) -> Iterator[str]:
    if not sweep.space:
        yield "space: is empty; it needs at least one field with its values"
    for name, values in sweep.space.items():
        if name.split(".")[0] in FIXED:
            yield f"space.{name}: is the same for all trials; set it in overrides"
        elif name not in known_fields():
            yield _unknown("space", name)
        if name == SEED:
            yield f"space.{name}: is not swept; name the replicas' seeds in seeds"
        if name in sweep.overrides:
            yield f"space.{name}: is overridden too, with {sweep.overrides[name]!r}; keep one of the two"
        if isinstance(values, Range):
            if sweep.search.kind == "grid" and values.count is None:
                yield f"space.{name}: is continuous; give it a step, or choose another search"
            continue
        if not values:
            yield f"space.{name}: has no values"
        texts = [json.dumps(value) for value in values]
        yield from (f"space.{name}: {text} is given twice" for text in dict.fromkeys(texts) if texts.count(text) > 1)
    if sweep.search.kind == "grid" and (sweep.num_combinations or 0) > MOST_COMBINATIONS:
        yield (
            f"space: has {sweep.num_combinations} combinations, a grid takes at most {MOST_COMBINATIONS}; "
            "give fewer values, or choose another search"
        )


def _seed_faults(sweep: SweepConfig) -> Iterator[str]:
    if not sweep.seeds:
        yield "seeds: is empty; name at least one"
    if len(set(sweep.seeds)) < len(sweep.seeds):
        yield f"seeds: {list(sweep.seeds)} names one twice"
    if SEED in sweep.overrides:
        yield f"overrides.{SEED}: the seeds of all trials are in seeds"


def _population_faults(sweep: SweepConfig) -> Iterator[str]:
    search = sweep.search
    if not isinstance(search, PopulationSearch):
        return
    for name in sweep.space:
        if name not in SCHEDULE and name in known_fields() and name.split(".")[0] not in FIXED:
            yield f"space.{name}: can't change while a member trains; a population takes {', '.join(SCHEDULE)}"
    if not isinstance(sweep.scheduler, NoScheduler):
        yield f"scheduler: is {sweep.scheduler.kind}; a population stops no member early, leave it out"
    if len(sweep.seeds) > 1:
        yield f"seeds: {list(sweep.seeds)}; the members of a population share one seed"
    if search.size * search.quantile < 1:
        yield (
            f"search.quantile: {search.quantile:g} of {search.size} members is less than one; "
            f"make it at least {math.ceil(1000 / search.size) / 1000:g}, or size larger"
        )
    if sweep.max_concurrent_trials < search.size:
        yield (
            f"max_concurrent_trials: {sweep.max_concurrent_trials} is less than search.size {search.size}; "
            "all members of a population train at the same time"
        )
