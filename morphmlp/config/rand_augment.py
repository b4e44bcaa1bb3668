"""The notation of RandAugment policies (timm's, as the published recipe writes it): `rand-m7-n4-mstd0.5-inc1`.

Parsed without torch, so that an experiment file is checked before anything is imported.
"""

import re
from dataclasses import dataclass

MAX_MAGNITUDE = 10.0


@dataclass(frozen=True, kw_only=True)
class RandAugmentPolicy:
    """How operations are drawn."""

    magnitude: float
    """Mean strength, 0 to `MAX_MAGNITUDE`."""
    num_ops: int
    """Operations drawn for a clip, with replacement."""
    magnitude_std: float
    """Standard deviation of the strength, drawn anew for each operation and held inside 0 to `MAX_MAGNITUDE`."""


def parse_rand_augment(text: str) -> RandAugmentPolicy:
    """The policy that a text names.

    Raises:
        ValueError: The text names none; see `rand_augment_faults`.
    """
    if faults := rand_augment_faults(text):
        raise ValueError("; ".join(faults))
    values = _values(text)
    return RandAugmentPolicy(
        magnitude=float(values["m"]), num_ops=int(values["n"]), magnitude_std=float(values.get("mstd", "0"))
    )


def rand_augment_faults(text: str) -> list[str]:
    """What is wrong with a policy's text; empty where it can be used."""
    head, *parts = text.split("-")
    if head != "rand":
        return ["it must begin with `rand-`, as in rand-m7-n4-mstd0.5-inc1"]
    faults = [f"{part!r} is none of m, n, mstd, inc with a number" for part in parts if not _FIELD.fullmatch(part)]
    if faults:
        return faults
    values = _values(text)
    if len(values) < len(parts):
        faults.append("a field is given twice")
    if "m" not in values or not 0 <= float(values["m"]) <= MAX_MAGNITUDE:
        faults.append(f"m (the magnitude) must be there, 0 to {MAX_MAGNITUDE:g}")
    if "n" not in values or not values["n"].isdecimal() or int(values["n"]) < 1:
        faults.append("n (the number of operations) must be there, a whole number from 1")
    if values.get("inc") != "1":
        faults.append("only policies whose severity rises with the magnitude are known: end it with inc1")
    return faults


_FIELD = re.compile(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)")


def _values(text: str) -> dict[str, str]:
    return {match[1]: match[2] for part in text.split("-")[1:] if (match := _FIELD.fullmatch(part))}
