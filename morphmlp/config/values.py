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
Part = Literal["stem", "stage1", "stage2", "stage3", "stage4", "head"]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
ThreeShares = tuple[Share, Share, Share]
ThreePositive = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Temporal = Literal["mixed", "averaged", "none"]
BlockOrder = Literal["temporal_first", "spatial_first", "parallel"]
BlockSkip = Literal["published", "standard"]
BranchSum = Literal["weighted", "plain"]
ChunkShape = Literal["windows", "padded_line", "padded_side"]
DecoderName = Literal["pyav", "decord", "torchcodec"]
Unit = Literal["epoch", "step"]
"""What a training's length is counted in."""
Fold = Literal["sum-logits", "mean-logits", "sum-probabilities", "mean-probabilities"]
"""How views become one score of a class. Of one test sums and means give the same answers; of several tests together a
sum weighs each by its views, a mean weighs all alike. Probabilities, for calibration, are always those of the mean."""
ImageDecoderName = Literal["simplejpeg", "pillow"]


def name_faults(name: str, field: str = "name") -> list[str]:
    """Why folders, the record and a terminal's line can't carry a name: one line or none."""
    if not name or "/" in name or name.startswith("."):
        return [f"{field}: {name!r} must be a plain name, without / and leading dots"]
    if not name.isprintable() or name != name.strip():
        fault = "holds line breaks or other signs that can't be seen; use letters, digits, - and _"
        return [f"{field}: {name!r} {fault}"]
    if "'" in name and '"' in name:
        return [f"{field}: {name!r} holds both kinds of quotes; use one at most"]
    return []
