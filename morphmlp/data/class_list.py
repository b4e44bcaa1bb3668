"""Reads the names of a data set's classes: their order is the order of the network's outputs."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from morphmlp.data.annotation_formats import Faults, lines_of, read_content
from morphmlp.data.manifest import read_class_names
from morphmlp.errors import ManifestError

_Entry = tuple[int, str, str]
"""Line, name, id as it is written."""


def read_class_list(
    path: str | Path,
    *,
    unnumbered: Literal["as they stand", "alphabetical"] = "as they stand",
    clean: Callable[[str], str] = str,
) -> tuple[str, ...]:
    """Class names in label order.

    `name<TAB>id` lines say their ids, as the published list of Kinetics-400 does, whose order is not alphabetical. So
    does a JSON object `{name: id}`, the label file of Something-Something V2. One name per line counts from 0. A
    manifest (.parquet) gives the names it carries.

    Args:
        path: The list.
        unnumbered: How names without ids are counted.
        clean: Brings a name of a text file into the form in which annotations have it.

    Raises:
        ManifestError: All faults with their lines.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        return read_class_names(path)
    faults = Faults(path)
    content = read_content(path)
    if content.lstrip().startswith(b"{"):
        entries = _json_entries(content, clean, faults)
    else:
        lines = lines_of(content, faults)
        if lines and "\t" in lines[0][1]:
            entries = _numbered_entries(lines, clean, faults)
        else:
            entries = _counted_entries(lines, clean, alphabetical=unnumbered == "alphabetical")
    names = _in_order(entries, len(entries) + len(faults), faults)
    faults.raise_if_any()
    if not names:
        raise ManifestError(f"{path}: holds no classes")
    return names


def _counted_entries(
    lines: Sequence[tuple[int, str]], clean: Callable[[str], str], *, alphabetical: bool
) -> list[_Entry]:
    named = [(line, clean(text.strip().strip('"'))) for line, text in lines]
    if alphabetical:
        named.sort(key=lambda entry: entry[1])
    return [(line, name, str(place)) for place, (line, name) in enumerate(named)]


def _numbered_entries(lines: Sequence[tuple[int, str]], clean: Callable[[str], str], faults: Faults) -> list[_Entry]:
    entries = []
    for line, text in lines:
        name, tab, digits = text.rpartition("\t")
        name, digits = clean(name.strip().strip('"')), digits.strip()
        if name and tab and digits.isdecimal():
            entries.append((line, name, digits))
        else:
            faults.add(line, f"unreadable line {text[:120]!r}; it must be `name<TAB>id`, as the first line is")
    return entries


def _json_entries(content: bytes, clean: Callable[[str], str], faults: Faults) -> list[_Entry]:
    try:
        text = content.decode()
        # Pairs, not a dict: of a name that stands there twice, a dict would keep one.
        pairs = json.loads(text, object_pairs_hook=list)
    except UnicodeDecodeError as error:
        faults.add(content.count(b"\n", 0, error.start) + 1, "unreadable line; it must be UTF-8 text")
        return []
    except json.JSONDecodeError as error:
        faults.add(error.lineno, f"not JSON: {error.msg} at column {error.colno}")
        return []
    entries = []
    place = 0
    for name, written in pairs:
        place = max(text.find(json.dumps(name, ensure_ascii=False), place), place)
        line, digits = text.count("\n", 0, place) + 1, str(written)
        if clean(name) and digits.isdecimal():
            entries.append((line, clean(name), digits))
        else:
            faults.add(line, f"class {name!r} has id {written!r}; it must be a whole number")
    return entries


def _in_order(entries: Sequence[_Entry], count: int, faults: Faults) -> tuple[str, ...]:
    """The names by their ids, which must be those below `count`, each once."""
    names: dict[int, str] = {}
    line_of: dict[str, int] = {}
    for line, name, digits in entries:
        if name in line_of:
            faults.add(line, f"class {name!r} stands on line {line_of[name]} already")
        elif int(digits) in names:
            faults.add(line, f"class id {int(digits)} belongs to {names[int(digits)]!r} already")
        elif int(digits) >= count:
            faults.add(line, f"class id {int(digits)} leaves a gap; the ids of {count} classes are 0 to {count - 1}")
        else:
            names[int(digits)], line_of[name] = name, line
    return tuple(names[number] for number in sorted(names))
