"""Reads the names of a data set's classes: their order is the order of the network's outputs."""

from pathlib import Path

from morphmlp.data.annotation_formats import Faults, read_lines
from morphmlp.data.manifest import read_class_names
from morphmlp.errors import ManifestError


def read_class_list(path: str | Path) -> tuple[str, ...]:
    """Class names in label order.

    One name per line counts from 0; `name<TAB>id` lines say their ids, as the published list of Kinetics-400 does,
    whose order is not alphabetical. A manifest (.parquet) gives the names it carries.

    Raises:
        ManifestError: All faults with their lines.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        return read_class_names(path)
    faults = Faults(path)
    lines = read_lines(path, faults)
    numbered = bool(lines) and "\t" in lines[0][1]
    names: dict[int, str] = {}
    line_of: dict[str, int] = {}
    for place, (line, text) in enumerate(lines):
        name, tab, digits = text.rpartition("\t") if numbered else (text, "\t", str(place))
        name, digits = name.strip().strip('"'), digits.strip()
        if not (name and tab and digits.isdecimal()):
            faults.add(line, f"unreadable line {text[:120]!r}; it must be `name<TAB>id`, as the first line is")
        elif name in line_of:
            faults.add(line, f"class {name!r} stands on line {line_of[name]} already")
        elif int(digits) in names:
            faults.add(line, f"class id {int(digits)} belongs to {names[int(digits)]!r} already")
        elif int(digits) >= len(lines):
            faults.add(
                line, f"class id {int(digits)} leaves a gap; the ids of {len(lines)} classes are 0 to {len(lines) - 1}"
            )
        else:
            names[int(digits)], line_of[name] = name, line
    faults.raise_if_any()
    if not names:
        raise ManifestError(f"{path}: holds no classes")
    return tuple(names[number] for number in sorted(names))
