"""Decode cores that one GPU needs, by how fast it trains and how its videos are stored."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from morphmlp.errors import ConfigError
from morphmlp.sizing.arithmetic import BUSY

_FORMS = {
    "product": "mp4",
    "prepared": "mp4, prepared",
    "webm": "webm (VP9)",
    "frame_folder": "folder of JPEG frames",
    "packed": "packed frames",
}
"""Ways of `benchmark.py ingest` by the words for them."""


@dataclass(frozen=True, kw_only=True)
class DecodeBudget:
    """What a form of video costs, and cores for it."""

    form: str
    core_ms: float
    """CPU milliseconds of a training clip, from the file to the micro-batch."""
    cores: tuple[float, ...]
    """Of one GPU, at each rate."""


def decode_budget(path: Path, *, clips_per_s: Sequence[float]) -> list[DecodeBudget]:
    """Cores of one GPU that takes so many clips a second, by a result of `benchmark.py ingest`.

    What Ray Data adds to a clip was measured on mp4, and is the same for the other forms: it moves finished clips.

    Raises:
        ConfigError: The file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        costs, whole = content["clip_costs"]["cpu_ms"], content["ingest"]["ray_cpu_ms"]
        forms = {words: whole - costs["product"] + costs[name] for name, words in _FORMS.items()}
    except OSError as error:
        raise ConfigError([f"--measured {path}: {error.strerror}"]) from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError([f"--measured {path}: isn't a result of `benchmark.py ingest --json FILE`"]) from None
    return [
        DecodeBudget(form=words, core_ms=core_ms, cores=tuple(rate * core_ms / 1000 / BUSY for rate in clips_per_s))
        for words, core_ms in forms.items()
    ]


def budget_table(budgets: Sequence[DecodeBudget], *, clips_per_s: Sequence[float]) -> str:
    """A row for each form, a column for each rate."""
    return tabulate(
        [[budget.form, f"{budget.core_ms:.1f}", *(f"{cores:.1f}" for cores in budget.cores)] for budget in budgets],
        ["stored as", "core-ms a clip", *(f"{rate:g} clips/s" for rate in clips_per_s)],
        tablefmt="github",
        disable_numparse=True,
    )
