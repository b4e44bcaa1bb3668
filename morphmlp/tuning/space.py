"""The points of a sweep, before anything starts: which can run, at what cost, and which can't, and why.

Knows configurations and networks; no Ray, no record.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from morphmlp.config import ExperimentConfig, config_from_mapping, with_overrides
from morphmlp.config.sweep import SweepConfig
from morphmlp.errors import ConfigError
from morphmlp.models.cost import ModelCost, model_cost

LONGEST_LABEL = 80


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point that can run."""

    values: Mapping[str, JsonValue]
    """The swept fields, dotted, and what they are here."""
    title: str
    """The values as people read them, `[8 4 4 1]`."""
    label: str
    """The values as part of a file's name, `8-4-4-1`."""
    config: ExperimentConfig
    cost: ModelCost


@dataclass(frozen=True, kw_only=True)
class ImpossiblePoint:
    """A point that breaks a rule of the schema."""

    values: Mapping[str, JsonValue]
    title: str
    reasons: tuple[str, ...]
    """One line for each broken rule, led by its dotted field."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """All points of a sweep, each kind in the grid's order."""

    points: tuple[Point, ...]
    impossible: tuple[ImpossiblePoint, ...]


def expand(sweep: SweepConfig, base: Mapping[str, JsonValue]) -> Space:
    """Every combination of the grid's values, checked as an experiment would be.

    Args:
        sweep: The sweep.
        base: Content of its base experiment's file.

    Raises:
        ConfigError: The base experiment itself has faults, or no point at all is possible.
    """
    try:
        config_from_mapping(base)
    except ConfigError as error:
        raise ConfigError([f"{sweep.experiment}: {fault}" for fault in error.faults]) from None
    shared = with_overrides(base, {**sweep.overrides, "name": sweep.name})
    points: list[Point] = []
    impossible: list[ImpossiblePoint] = []
    for combination in itertools.product(*sweep.grid.values()):
        values = dict(zip(sweep.grid, combination, strict=True))
        try:
            config = config_from_mapping(with_overrides(shared, values))
        except ConfigError as error:
            impossible.append(ImpossiblePoint(values=values, title=title_of(values), reasons=error.faults))
            continue
        cost = model_cost(config.model, num_frames=config.clip.num_frames, crop_size=config.clip.crop_size)
        points.append(Point(values=values, title=title_of(values), label=label_of(values), config=config, cost=cost))
    if not points:
        raise ConfigError(
            ["grid: none of its points is possible"]
            + [f"grid: {point.title}: {reason}" for point in impossible for reason in point.reasons]
        )
    return Space(points=tuple(points), impossible=tuple(impossible))


def title_of(values: Mapping[str, JsonValue]) -> str:
    """`[8 4 4 1]` where one field is swept, `chunk_lengths [8 4 4 1], lr 0.001` where several are."""
    if len(values) == 1:
        return text_of(next(iter(values.values())))
    names = short_names(list(values))
    return ", ".join(f"{name} {text_of(value)}" for name, value in zip(names, values.values(), strict=True))


def label_of(values: Mapping[str, JsonValue]) -> str:
    """The values as part of a file's name; not necessarily unique, since long ones are cut."""
    texts = [re.sub(r"[^\w.+]+", "-", text_of(value)).strip("-.") or "empty" for value in values.values()]
    if len(texts) > 1:
        texts = [f"{name}-{text}" for name, text in zip(short_names(list(values)), texts, strict=True)]
    return "_".join(texts)[:LONGEST_LABEL]


def text_of(value: JsonValue) -> str:
    """A value for people: lists in brackets, without commas."""
    if isinstance(value, list):
        return f"[{' '.join(text_of(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def short_names(fields: Sequence[str]) -> list[str]:
    """Fields without their sections, as long as that tells them apart."""
    leaves = [field.rpartition(".")[2] for field in fields]
    return leaves if len(set(leaves)) == len(leaves) else list(fields)
