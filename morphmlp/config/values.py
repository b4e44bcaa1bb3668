"""Kinds of values that experiment files are made of."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
FourInts = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Stage = Annotated[int, Field(ge=1, le=4)]
Branch = Literal["height", "width", "channel"]
Temporal = Literal["mixed", "averaged", "none"]
DecoderName = Literal["pyav", "decord", "torchcodec"]


def name_faults(name: str) -> list[str]:
    """Why runs can't be named after this name, which their folders carry: one line or none."""
    if not name or "/" in name or name.startswith("."):
        return [f"name: {name!r} must be a plain name, without / and leading dots"]
    return []
