"""The points of a sweep, before anything starts: which can run, at what cost, and which can't, and why."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_type_hints

import numpy as np
from pydantic import JsonValue, TypeAdapter, ValidationError

from morphmlp.config import ExperimentConfig, ModelConfig, config_from_mapping, with_overrides
from morphmlp.config.clip import ClipConfig
from morphmlp.config.segmentation import SegmentationConfig, with_neutral_sections
from morphmlp.config.sweep import Range, SweepConfig, unit_faults
from morphmlp.data.stream.plan import random_generator
from morphmlp.errors import ConfigError
from morphmlp.models.planned_cost import ModelCost, planned_cost
from morphmlp.tuning.space.fitting import (
    Sizes,
    brought_inside,
    budget_faults,
    measured_latency_ms,
    nearest_to_budget,
    nearest_values,
)

_EXPERIMENT = TypeAdapter(ExperimentConfig)
_SECTIONS: dict[str, TypeAdapter[object]] = {
    section: TypeAdapter(kind) for section, kind in get_type_hints(ExperimentConfig, include_extras=True).items()
}
_FAULTY = object()
LONGEST_LABEL = 80
DRAWS_PER_POINT = 200
"""Random draws after which a space has no more new points, for each point that the search needs."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point that can run."""

    values: Mapping[str, JsonValue]
    """The swept fields, dotted, and what they are here."""
    cost: ModelCost
    replaces: Mapping[str, JsonValue] | None = None
    """The values that the search chose, where they weren't possible or cost too much or too little."""
    make_config: Callable[[Mapping[str, JsonValue]], ExperimentConfig] = field(repr=False, compare=False)
    """The experiment with such values."""

    @cached_property
    def key(self) -> str:
        """The values as a text that only equal points share."""
        return json.dumps(dict(self.values), sort_keys=True)

    @cached_property
    def title(self) -> str:
        """The values as people read them, `[8 4 4 1]`."""
        return title_of(self.values)

    @cached_property
    def label(self) -> str:
        """The values as part of a file's name, `8-4-4-1`."""
        return label_of(self.values)

    @cached_property
    def config(self) -> ExperimentConfig:
        """The complete experiment."""
        return self.make_config(self.values)


@dataclass(frozen=True, kw_only=True)
class ImpossiblePoint:
    """A point that breaks a rule of the schema, or lies outside of the budget."""

    values: Mapping[str, JsonValue]
    title: str
    reasons: tuple[str, ...]
    """One line for each broken rule, led by its dotted field."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The points of a sweep as far as they are known before it starts, each kind in the search's order."""

    points: tuple[Point, ...]
    impossible: tuple[ImpossiblePoint, ...]
    notes: tuple[str, ...] = ()
    """What else there is to know of them."""

    def num_points(self, sweep: SweepConfig) -> int:
        """Points that the sweep runs, as far as is known."""
        proposed = sweep.num_points if sweep.search.kind == "optuna" else None
        return proposed or len(self.points)


class Assembly:
    """Makes experiments that differ from one another in some dotted fields, out of sections that are validated once.

    They are what `config_from_mapping` makes of the complete content, made faster where many share their sections.
    What they share needn't be valid without the fields that differ.
    """

    def __init__(self, shared: Mapping[str, JsonValue]) -> None:
        self._shared = shared = with_neutral_sections(shared)
        self._known: dict[str, object] = {}
        self._unchanged = {section: self._section(section, {}) for section in shared}

    def parts(self, values: Mapping[str, JsonValue]) -> dict[str, object]:
        """The sections with these values; those that have faults of their own are left out."""
        changes: dict[str, dict[str, JsonValue]] = {}
        for dotted, value in values.items():
            changes.setdefault(_section_of(dotted), {})[dotted] = value
        changed = {section: self._section(section, fields) for section, fields in changes.items()}
        return {name: part for name, part in {**self._unchanged, **changed}.items() if part is not _FAULTY}

    def config(self, values: Mapping[str, JsonValue], parts: Mapping[str, object] | None = None) -> ExperimentConfig:
        """The experiment with these values, of which `parts` may be at hand.

        Raises:
            ConfigError: All its faults, each led by its dotted path.
        """
        parts = self.parts(values) if parts is None else parts
        if parts.keys() >= self._unchanged.keys() and all(_section_of(dotted) in parts for dotted in values):
            try:
                return _EXPERIMENT.validate_python(parts)
            except ValidationError:
                pass  # raised below with all faults, as for a file
        return config_from_mapping(with_overrides(self._shared, values))

    def _section(self, section: str, changes: Mapping[str, JsonValue]) -> object:
        key = f"{section} {changes!r}"  # where 1, 1.0 and True are different
        if key not in self._known:
            self._known[key] = self._validated(section, changes)
        return self._known[key]

    def _validated(self, section: str, changes: Mapping[str, JsonValue]) -> object:
        if section not in _SECTIONS:
            return _FAULTY
        own = {section: self._shared[section]} if section in self._shared else {}
        try:
            content = with_overrides(own, changes)
            return _SECTIONS[section].validate_json(json.dumps(content[section]), strict=True)
        except (ConfigError, ValidationError, TypeError):
            return _FAULTY


class Planner:
    """Says of a sweep's values whether they can run, and at what cost; some ten thousand a second."""

    def __init__(self, sweep: SweepConfig, base: Mapping[str, JsonValue]) -> None:
        """Take the sweep, and the content of its base experiment's file.

        Raises:
            ConfigError: The base experiment itself has faults.
        """
        try:
            config_from_mapping(base)
        except ConfigError as error:
            raise ConfigError([f"{sweep.experiment}: {fault}" for fault in error.faults]) from None
        self._sweep = sweep
        self._assembly = Assembly(with_overrides(base, {**sweep.overrides, "name": sweep.name}))
        self._costs: dict[tuple[object, ...], ModelCost] = {}
        self._fitted: dict[Sizes, Sizes] = {}
        self._latencies: dict[Sizes, float] = {}

    def point(self, values: Mapping[str, JsonValue], *, measure: bool = True) -> Point | ImpossiblePoint:
        """The point of these values, moved to possible ones or into the budget where the sweep asks for that.

        Of a point that was found before, the latency needn't be measured again.
        """
        asked, values = values, dict(values)
        sizes, faults = self._checked(values)
        if faults and sizes is not None and self._sweep.impossible == "nearest":
            values = nearest_values(values, sizes)
            sizes, faults = self._checked(values)
        if faults or sizes is None:
            return ImpossiblePoint(values=asked, title=title_of(asked), reasons=faults)
        budget, changed = self._sweep.budget, values != dict(asked)
        if reasons := budget_faults(self._cost(sizes), budget):
            fitted = self._fit(sizes)
            if budget_faults(self._cost(fitted), budget):
                known = tuple(reason + self._nearest(fitted) for reason in reasons)
                return ImpossiblePoint(values=asked, title=title_of(asked), reasons=known)
            sizes, changed = fitted, True
        if measure and (fault := self._latency_fault(sizes)):
            return ImpossiblePoint(values=asked, title=title_of(asked), reasons=(fault,))
        if budget.adjust is not None:  # in every point, so that all have the same fields
            values |= {f"model.{budget.adjust}": list(getattr(sizes.model, budget.adjust))}
        return Point(
            values=values, cost=self._cost(sizes), replaces=asked if changed else None, make_config=self.config
        )

    def config(self, values: Mapping[str, JsonValue]) -> ExperimentConfig:
        """The experiment of a sweep with these values.

        Raises:
            ConfigError: They aren't possible.
        """
        return self._assembly.config(values)

    def _checked(self, values: Mapping[str, JsonValue]) -> tuple[Sizes | None, tuple[str, ...]]:
        """What the values make of the network, None where that can't be read; and what is wrong with them."""
        parts = self._assembly.parts(values)
        model, clip, segmentation = parts.get("model"), parts.get("clip"), parts.get("segmentation")
        sizes = None
        if isinstance(model, ModelConfig) and isinstance(clip, ClipConfig):
            sizes = Sizes(
                model=model,
                num_frames=clip.num_frames,
                crop_size=clip.crop_size,
                segmentation=segmentation if isinstance(segmentation, SegmentationConfig) else None,
            )
            # Shape rules alone are checked in no time; most impossible points break them.
            if faults := model.shape_faults(clip.crop_size):
                return sizes, tuple(faults)
        try:
            config = self._assembly.config(values, parts)
        except ConfigError as error:
            return sizes, tuple(error.faults)
        return sizes or Sizes.of(config), ()

    def _cost(self, sizes: Sizes) -> ModelCost:
        model, frames, crop = sizes.model, sizes.num_frames, sizes.crop_size
        # Chunk lengths cost nothing where they divide the tokens.
        padded = model.chunk_shape != "windows" or model.chunk_crop_size is not None
        key = (
            *(model.embed_dims, model.depths, model.mlp_ratio, model.num_classes, model.temporal, model.branches),
            *(model.branch_sum, model.group_width, frames, crop),
            *((model.chunk_shape, model.chunk_crop_size, model.chunk_lengths) if padded else ()),
            sizes.segmentation,
        )
        if key not in self._costs:
            self._costs[key] = planned_cost(model, num_frames=frames, crop_size=crop, segmentation=sizes.segmentation)
        return self._costs[key]

    def _fit(self, sizes: Sizes) -> Sizes:
        """The network brought into the budget, or as near to it as can be, where the sweep asks for that."""
        budget = self._sweep.budget
        if budget.adjust is None:
            return sizes
        if sizes not in self._fitted:
            inside = brought_inside(sizes, budget, self._cost)
            self._fitted[sizes] = inside or nearest_to_budget(sizes, budget, self._cost)
        return self._fitted[sizes]

    def _nearest(self, fitted: Sizes) -> str:
        """What a network that couldn't be brought into the budget came nearest with, as the end of a line."""
        adjust, cost = self._sweep.budget.adjust, self._cost(fitted)
        if adjust is None:
            return ""
        sizes = text_of(list(getattr(fitted.model, adjust)))
        return (
            f"; the nearest {adjust}, {sizes}, take {cost.gmacs:.4g} GMAC, {cost.params / 1e6:.4g} million parameters"
        )

    def _latency_fault(self, sizes: Sizes) -> str | None:
        """Why a network is too slow, or too fast, for the budget; measured once for each network."""
        if (bound := self._sweep.budget.latency_ms) is None:
            return None
        if sizes not in self._latencies:
            self._latencies[sizes] = measured_latency_ms(sizes)
        taken = self._latencies[sizes]
        if bound[0] <= taken <= bound[1]:
            return None
        return f"budget.latency_ms: {taken:.1f} ms a view here lie outside of [{bound[0]:g}, {bound[1]:g}]"


def expand(sweep: SweepConfig, base: Mapping[str, JsonValue]) -> Space:
    """The points of a sweep's search, checked as experiments would be.

    With a search that proposes points from results, only an example: the first of its space that can run.

    Raises:
        ConfigError: The base experiment itself has faults, no point at all is possible, or the sweep counts in another
            unit than its trials.
    """
    planner = Planner(sweep, base)
    num_points = 1 if sweep.search.kind == "optuna" else sweep.num_points
    candidates = _combinations(sweep) if sweep.search.kind == "grid" else _draws(sweep)
    points: dict[str, Point] = {}
    impossible: list[ImpossiblePoint] = []
    alike = 0
    for values in candidates:
        point = planner.point(values)
        if isinstance(point, ImpossiblePoint):
            impossible.append(point)
            continue
        alike += points.setdefault(point.key, point) is not point
        if len(points) == num_points:
            break
    if not points:
        raise ConfigError(
            ["space: none of its points is possible"]
            + [f"space: {point.title}: {reason}" for point in impossible[:20] for reason in point.reasons]
        )
    if faults := unit_faults(sweep, next(iter(points.values())).config.train.unit):
        raise ConfigError(faults)
    notes = []
    if num_points is not None and len(points) < num_points:
        name = "size" if sweep.search.kind == "population" else "num_points"
        notes.append(f"search.{name}: is {num_points}, but only {len(points)} points were found")
    if alike:
        notes.append(f"Became the same as another point when they were moved: {alike}")
    known = () if sweep.search.kind == "optuna" else tuple(impossible)  # which will propose others
    return Space(points=tuple(points.values()), impossible=known, notes=tuple(notes))


def _combinations(sweep: SweepConfig) -> Iterator[dict[str, JsonValue]]:
    lists = [values.listed() or () if isinstance(values, Range) else values for values in sweep.space.values()]
    for combination in itertools.product(*lists):
        yield dict(zip(sweep.space, combination, strict=True))


def _draws(sweep: SweepConfig) -> Iterator[dict[str, JsonValue]]:
    """Random values, none twice, for as long as there are new ones."""
    seed = getattr(sweep.search, "seed", 0)
    known: set[str] = set()
    for number in range((sweep.num_points or 1) * DRAWS_PER_POINT):
        if len(known) == sweep.num_combinations:
            return
        rng = random_generator(seed, "space", number)
        values = {name: drawn(choices, rng) for name, choices in sweep.space.items()}
        key = json.dumps(values)
        if key not in known:
            known.add(key)
            yield values


def drawn(choices: Sequence[JsonValue] | Range, rng: np.random.Generator) -> JsonValue:
    """One of a field's values, each with the same chance."""
    if not isinstance(choices, Range):
        return choices[int(rng.integers(len(choices)))]
    if choices.count is not None:
        return choices.number(int(rng.integers(choices.count)))
    low, high = float(choices.low), float(choices.high)
    number = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if choices.log else float(rng.uniform(low, high))
    return round(number) if choices.is_whole else number


def title_of(values: Mapping[str, JsonValue]) -> str:
    """`[8 4 4 1]` where one field is swept, `chunk_lengths [8 4 4 1], lr 0.001` where several are."""
    return text_of(next(iter(values.values()))) if len(values) == 1 else named(values)


def named(values: Mapping[str, JsonValue]) -> str:
    """`chunk_lengths [8 4 4 1], lr 0.001`."""
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


def counted(count: int, word: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def short_names(fields: Sequence[str]) -> list[str]:
    """Fields without their sections, as long as that keeps them distinct."""
    leaves = [field.rpartition(".")[2] for field in fields]
    return leaves if len(set(leaves)) == len(leaves) else list(fields)


def _section_of(dotted: str) -> str:
    return dotted.partition(".")[0]
