"""Published numbers as `experiments/published.yaml` holds them, and which points of a sweep they stand next to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import JsonValue, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import flat_fields, read_yaml
from morphmlp.config.values import STRICT, PositiveFloat, PositiveInt
from morphmlp.errors import ConfigError
from morphmlp.reporting.tables.published_rows import (
    Percent,
    PublishedImage,
    PublishedNetwork,
    PublishedSegmentation,
    PublishedVideo,
)

TITLES = {
    "k400": "Kinetics-400",
    "ssv1": "Something-Something V1",
    "ssv2": "Something-Something V2",
    "imagenet": "ImageNet-1K",
    "ade20k": "ADE20K",
}
"""Data sets with published numbers that runs are held against, and their names in print."""
DataSetName = Literal["k400", "ssv1", "ssv2", "imagenet", "ade20k"]

Family = Literal["MLP", "attention", "convolution", "mixed", "state space", "Fourier"]
"""How a network mixes places; mixed: by convolution and attention."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Variant:
    """One row of an ablation."""

    variant: str
    """What it is, in words."""
    fields: dict[str, JsonValue] | None
    """Dotted fields of an experiment that make it here; null where none do."""
    top1: Percent
    """Top-1, percent."""
    miou: Percent | None = None
    """mIoU on ADE20K with Semantic FPN, percent."""
    params_m: PositiveFloat | None = None
    """Parameters as printed, millions."""
    gflops: PositiveFloat | None = None
    """Multiply-accumulates as printed, billions."""
    images_per_s: PositiveFloat | None = None
    """Images per second as printed."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ablation:
    """One of the paper's ablation tables."""

    table: PositiveInt
    """Its number in arXiv 2111.12527v1."""
    title: str
    """What is varied."""
    dataset: Literal["imagenet", "ssv1"]
    """Data set whose validation split was scored."""
    network: str
    """Name in print."""
    epochs: PositiveInt | None
    """Length of the trainings; null where none is printed."""
    rows: tuple[Variant, ...]

    @model_validator(mode="after")
    def _rows_have_the_same_fields(self) -> Self:
        if len({tuple(row.fields) for row in self.rows if row.fields is not None}) > 1:
            raise ValueError(f"rows of table {self.table} have different fields; name the same ones in each")
        return self

    def printed(self, config: ExperimentConfig, swept: Sequence[str]) -> str | None:
        """What is printed for the variant that an experiment is, where nothing else of it is swept."""
        fields = flat_fields(config)
        for row in self.rows:
            if row.fields and row.fields.keys() >= set(swept) and row.fields.items() <= fields.items():
                return f"{row.top1:.1f} ({self.network}, {TITLES[self.dataset]}, Table {self.table})"
        return None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Other:
    """A number of a network that isn't measured here."""

    model: str
    """Name in print."""
    family: Family
    """How it mixes places."""
    pretrained: str | None = None
    """What it was trained on before, `none` for nothing; null where that wasn't read."""
    score: Percent
    """Top-1, on ADE20K mIoU, percent."""
    top5: Percent | None = None
    """Top-5, percent."""
    params_m: PositiveFloat | None = None
    """Parameters, millions."""
    gflops_total: PositiveFloat | None = None
    """Multiply-accumulates over all views, billions."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Others:
    """Numbers on one data set from one place."""

    dataset: DataSetName
    source: str
    """Where they can be read."""
    rows: tuple[Other, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Claim:
    """What a paper says of one of its rows against one other network, or against the best one of a family."""

    words: str
    """As printed."""
    source: str
    """Where they can be read."""
    dataset: DataSetName
    """Data set of the rows."""
    preset: str
    """The row of MorphMLP, by its preset."""
    against: str | None = None
    """Name of the other network."""
    family: Family | None = None
    """In its place: the best one of these."""
    among: str | None = None
    """Source of the other networks' rows; null for any."""
    gflops_percent: PositiveInt | None = None
    """Arithmetic in percent of the other network's, as printed."""
    points: PositiveFloat | None = None
    """Percentage points more than the other network, as printed; null where it only says that it is better."""

    @property
    def rival(self) -> str:
        """Whom it is against, a network or a family."""
        return self.against or self.family or ""

    @model_validator(mode="after")
    def _names_one_side(self) -> Self:
        if (self.against is None) == (self.family is None):
            raise ValueError("name one of `against` and `family`")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Published:
    """Everything in `experiments/published.yaml`."""

    videos: tuple[PublishedVideo, ...]
    images: tuple[PublishedImage, ...]
    segmentations: tuple[PublishedSegmentation, ...]
    ablations: tuple[Ablation, ...]
    others: tuple[Others, ...]
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _claims_name_rows(self) -> Self:
        for claim in self.claims:
            if not self.rivals(claim):
                raise ValueError(f"no row of `others` is what the claim on {claim.dataset} names: {claim.words!r}")
            if len(self._own(claim)) != 1:
                raise ValueError(f"{claim.preset} has not one row on {claim.dataset}: {claim.words!r}")
        return self

    def claimant(self, claim: Claim) -> PublishedNetwork:
        """The row that a claim is about."""
        [row] = self._own(claim)
        return row

    def rivals(self, claim: Claim) -> tuple[Other, ...]:
        """The rows that a claim compares it with."""
        groups = [group for group in self.others if group.dataset == claim.dataset]
        rows = [row for group in groups if claim.among in (None, group.source) for row in group.rows]
        return tuple(row for row in rows if (row.model if claim.family is None else row.family) == claim.rival)

    def _own(self, claim: Claim) -> list[PublishedNetwork]:
        return [row for row in self.models(claim.dataset) if row.preset == claim.preset]

    def models(self, dataset: str) -> tuple[PublishedNetwork, ...]:
        """The published models of a data set."""
        every: tuple[PublishedNetwork, ...] = (*self.videos, *self.images, *self.segmentations)
        return tuple(row for row in every if row.dataset == dataset)


_PUBLISHED = TypeAdapter(Published)


def load_published(path: str | Path) -> Published:
    """Read `published.yaml`.

    Raises:
        ConfigError: The file is missing or holds something else; all faults together.
    """
    try:
        return _PUBLISHED.validate_json(json.dumps(read_yaml(path)), strict=True)
    except ValidationError as error:
        places = ((".".join(str(part) for part in detail["loc"]), detail["msg"]) for detail in error.errors())
        raise ConfigError([f"{path}: {place}: {message}" for place, message in places]) from None


def printed_numbers(
    ablations: Sequence[Ablation], config: ExperimentConfig, point: Mapping[str, JsonValue]
) -> str | None:
    """The paper's numbers for a sweep's point, `79.6 (MorphMLP-T, ImageNet-1K, Table 7)`; None where it has none.

    A point has one where all that is swept is what a table varies, and its experiment has the values of a row there.
    """
    found = [printed for table in ablations if (printed := table.printed(config, list(point))) is not None]
    return "; ".join(found) or None
