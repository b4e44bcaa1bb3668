"""Figures as SVG for a page that is one file: drawn once with matplotlib, with hover texts and links on the marks."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

INK, MUTED, LINES = "#1f2933", "#5f6c7b", "#e3e8ee"
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DIGITS = re.compile(r"(\d\.\d)\d+")
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

Hovers = list[tuple[Artist, list[str]]]
"""Marks and their hover texts, in the marks' order."""


def svg_of(
    figure: Figure, hovers: Hovers, label: str, *, attributes: Sequence[Sequence[Mapping[str, str]]] = ()
) -> Markup:
    """A figure as an element of a page: it fills its place, and its marks have their hover texts.

    Args:
        figure: Drawn in `panel_style`.
        hovers: Marks with their texts.
        label: For those who don't see it.
        attributes: Further ones of the marks, in the order of `hovers`.
    """
    for index, (artist, _) in enumerate(hovers):
        artist.set_gid(f"hover-{index}")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=_NO_METADATA, transparent=True)
    root = ElementTree.fromstring(file.getvalue())
    groups = {element.get("id"): element for element in root.iter(f"{{{_SVG}}}g")}
    for element in root.iter():
        # Hundreds of marks make a page large: what they repeat goes, and digits beyond 0.1 pixel.
        element.text, element.tail = (element.text or "").strip(), None
        element.attrib = {name: _DIGITS.sub(r"\1", value) for name, value in element.attrib.items()}
        element.attrib.pop("target", None)  # a link stays in its window
    for group in groups.values():
        styles = {mark.get("style") for mark in _marks(group)}
        if len(styles) == 1 and (style := styles.pop()):
            group.set("style", style)
            for mark in _marks(group):
                mark.attrib.pop("style")
    for index, (_, texts) in enumerate(hovers):
        marks = list(_marks(groups[f"hover-{index}"]))
        for mark, text in zip(marks, texts, strict=True):
            ElementTree.SubElement(mark, f"{{{_SVG}}}title").text = text
        for mark, own in zip(marks, attributes[index], strict=True) if attributes else ():
            mark.attrib |= own
    for group in groups.values():
        group.attrib.pop("id", None)  # the page has several figures, each with the same ids
    for name in ("width", "height"):
        root.attrib.pop(name)
    root.attrib |= {"role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # which escapes what is a user's


def _marks(group: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The drawn marks of a collection: copies of a definition, or, where a copy isn't worth it, paths."""
    for element in group:
        if element.tag in (f"{{{_SVG}}}use", f"{{{_SVG}}}path"):
            yield element
        elif element.tag != f"{{{_SVG}}}defs":
            yield from _marks(element)


@contextmanager
def panel_style(font_size: float) -> Iterator[None]:
    """Settings of all panels: texts stay texts in an SVG, and no user's text is read as a formula."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    settings: dict[Any, object] = {  # matplotlib types the names as literals
        "axes.axisbelow": True,
        "axes.edgecolor": MUTED,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.sans-serif": "DejaVu Sans",
        "font.size": font_size,
        "grid.color": LINES,
        "svg.fonttype": "none",
        "svg.hashsalt": "morphmlp",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
    with rc_context(settings):
        yield
