"""Durations, numbers and curves in a few letters."""

from collections.abc import Sequence
from itertools import pairwise

_BARS = "▁▂▃▄▅▆▇█"


def span(length_s: float) -> str:
    """A length of time, as in `45 s`, `12 min`, `3 h 20 min`, `5 d 2 h`."""
    whole = round(length_s)
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def seconds(length_s: float) -> str:
    """A step's time, as in `84 ms`, `3.2 s`."""
    return f"{length_s * 1000:.0f} ms" if length_s < 1 else f"{length_s:.3g} s" if length_s < 100 else span(length_s)


def rate(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def money(value: float, currency: str) -> str:
    """As in `1,234 EUR`, `3.20`."""
    return f"{value:,.0f} {currency}".rstrip() if value >= 1000 else f"{value:,.2f} {currency}".rstrip()


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of bars from the least value to the greatest, each the mean of its share of the values."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(len(values) * place / count) for place in range(count + 1)]
    means = [sum(values[begin:end]) / (end - begin) for begin, end in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in means)
