"""Pieces of hand-made SVG: scales, ticks, marks. Every text that goes in is escaped here."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from morphmlp.tuning.run.trials import TrialState

INK, MUTED, LINES = "#1f2933", "#5f6c7b", "#e3e8ee"
BEST, CLOSE, BEHIND, FRONT = "#b5462f", "#2a6f97", "#9fb3c0", "#c98a1b"

Shape = str


@dataclass(frozen=True, kw_only=True)
class StateLook:
    """How a state is shown: always with its words beside it."""

    words: str
    shape: Shape
    colour: str
    meaning: str


STATES: Mapping[TrialState, StateLook] = {
    "finished": StateLook(words="finished", shape="circle", colour=CLOSE, meaning="trained and tested"),
    "stopped": StateLook(words="stopped", shape="square", colour="#7b8794", meaning="by the scheduler, behind others"),
    "timed_out": StateLook(
        words="timed out", shape="diamond", colour="#b7791f", meaning="longer than max_trial_minutes"
    ),
    "diverged": StateLook(
        words="diverged", shape="triangle", colour="#7b4fa3", meaning="its loss or gradients were no numbers"
    ),
    "failed": StateLook(words="failed", shape="cross", colour="#c0392b", meaning="an error"),
}


def esc(text: object) -> str:
    """Text as HTML or an attribute may hold it."""
    return html.escape(str(text), quote=True)


def svg(width: float, height: float, parts: Sequence[str], *, label: str, fluid: bool = True) -> str:
    """A picture; a fluid one fills its place."""
    size = "" if fluid else f' width="{width:g}" height="{height:g}"'
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}"{size} role="img" aria-label="{esc(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, content: object, *, anchor: str = "start", size: float = 12, colour: str = INK) -> str:
    """A line of text; `y` is its baseline."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{colour}">'
        f"{esc(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, *, colour: str = LINES, width: float = 1, dash: str = "") -> str:
    """A straight line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def path(points: Sequence[tuple[float, float]], *, colour: str, width: float = 1.5, dash: str = "") -> str:
    """A line through points."""
    if len(points) < 2:
        return ""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{steps}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}/>'


def mark(
    shape: Shape,
    x: float,
    y: float,
    radius: float,
    colour: str,
    *,
    title: str = "",
    filled: bool = True,
    ring: str = "",
) -> str:
    """A mark with a hover text: circle, square, diamond, triangle or cross."""
    r = radius
    edge = ring or colour
    look = f'fill="{colour if filled else "#ffffff"}" stroke="{edge}" stroke-width="1.4"'
    corners = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "diamond": [(0, -1.3 * r), (1.3 * r, 0), (0, 1.3 * r), (-1.3 * r, 0)],
        "triangle": [(0, -1.2 * r), (1.2 * r, r), (-1.2 * r, r)],
    }
    hover = f"<title>{esc(title)}</title>" if title else ""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {look}>{hover}</circle>'
    if shape == "cross":
        strokes = f"M{x - r:.1f} {y - r:.1f}L{x + r:.1f} {y + r:.1f}M{x - r:.1f} {y + r:.1f}L{x + r:.1f} {y - r:.1f}"
        return f'<path d="{strokes}" stroke="{edge}" stroke-width="2" fill="none">{hover}</path>'
    ends = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])
    return f'<polygon points="{ends}" {look}>{hover}</polygon>'


def scale(low: float, high: float, start: float, end: float, *, log: bool = False) -> Callable[[float], float]:
    """From a value to a place on the page, `low` at `start` and `high` at `end`."""
    f = math.log10 if log else float
    from_low, width = f(low), (f(high) - f(low)) or 1.0
    return lambda value: start + (f(value) - from_low) / width * (end - start)


def padded(values: Sequence[float], *, log: bool = False, share: float = 0.06) -> tuple[float, float]:
    """Ends of an axis that leaves some room around the values; equal values get room too."""
    low, high = min(values), max(values)
    if log:
        factor = (high / low) ** share if high > low else 1.2
        return low / factor, high * factor
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - room, high + room


def ticks(low: float, high: float, *, most: int = 6, log: bool = False) -> list[float]:
    """Round numbers from `low` to `high`."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        numbers = [step * 10.0**power for power in powers for step in (1, 2, 5)]
        inside = [number for number in numbers if low <= number <= high]
        while len(inside) > most:
            inside = inside[::2]
        return inside
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """A tick as it is: round numbers need no rounding."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def number(value: float) -> str:
    """A number with three digits that count, without an exponent where people would write none."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.3g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
