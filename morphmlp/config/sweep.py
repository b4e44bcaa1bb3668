"""The schema of a sweep file: a base experiment, and the values that its fields take in turn.

A sweep point is what a command-line override is: a mapping from dotted fields to values. Which points
can run at all is asked of the experiment's own schema, in `morphmlp.tuning.space`.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import yaml
from pydantic import JsonValue, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.loading import read_yaml, validated
from morphmlp.config.schema import ExperimentConfig
from morphmlp.config.values import STRICT, PositiveInt

FIXED = ("name", "dataset", "execution", "ingest", "cluster")
"""Fields and sections that all trials share: they name the record, or place the trials on the cluster."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepConfig:
    """One sweep: one YAML file, one parent run with a run per point."""

    name: str
    """Name of the sweep; runs are named after it."""
    experiment: str
    """File of the base experiment, relative to the working directory."""
    overrides: dict[str, JsonValue]
    """Dotted fields of the base experiment with the value that they have in every trial."""
    grid: dict[str, tuple[JsonValue, ...]]
    """Dotted fields with the values that they take; the points are all combinations, the last field varying first."""
    max_concurrent_trials: PositiveInt = 1
    """Trials that run at the same time."""

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        faults = [
            *_name_faults(self.name),
            *(f"overrides.{field}: unknown field" for field in self.overrides if field not in known_fields()),
            *_grid_faults(self.grid, self.overrides),
        ]
        if faults:
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
    return validated(TypeAdapter(SweepConfig), content)


def sweep_to_yaml(sweep: SweepConfig) -> str:
    """The resolved sweep as YAML that `load_sweep` reads back to an equal value."""
    mapping = TypeAdapter(SweepConfig).dump_python(sweep, mode="json")
    return yaml.safe_dump(mapping, sort_keys=False, default_flow_style=None, width=110)


def known_fields() -> frozenset[str]:
    """Every dotted field of an experiment."""
    return frozenset(_fields_of(ExperimentConfig, ""))


def _fields_of(schema: type, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(schema):
        dotted = f"{prefix}{field.name}"
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from _fields_of(field.type, f"{dotted}.")
        else:
            yield dotted


def _name_faults(name: str) -> Iterator[str]:
    if not name or "/" in name or name.startswith("."):
        yield f"name: {name!r} must be a plain name, without / and leading dots"


def _grid_faults(grid: Mapping[str, Sequence[JsonValue]], overrides: Mapping[str, JsonValue]) -> Iterator[str]:
    if not grid:
        yield "grid: is empty; it needs at least one field with its values"
    for field, values in grid.items():
        if field.split(".")[0] in FIXED:
            yield f"grid.{field}: is the same for all trials; set it in overrides"
        elif field not in known_fields():
            yield f"grid.{field}: unknown field"
        if field in overrides:
            yield f"grid.{field}: is overridden too, with {overrides[field]!r}; keep one of the two"
        if not values:
            yield f"grid.{field}: has no values"
        texts = [json.dumps(value) for value in values]
        yield from (f"grid.{field}: {text} is given twice" for text in dict.fromkeys(texts) if texts.count(text) > 1)
