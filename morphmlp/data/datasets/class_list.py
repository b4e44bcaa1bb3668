"""Reads the names of a data set's classes: their order is the order of the network's outputs."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from morphmlp.data.datasets.lines import Faults, lines_of, read_content
from morphmlp.data.manifest import read_class_names
from morphmlp.errors import ManifestError

_Entry = tuple[int, str, str]
"""Line, name, id as it is written."""


@dataclass(frozen=True)
class _Form:
    """A form of lines that say their ids."""

    words: str
    line: re.Pattern[str]
    header: tuple[str, str] | None = None
    """Of the form's CSV."""


_FORMS = (
    _Form("name<TAB>id", re.compile(r"(?P<name>[^\t]*\S[^\t]*)\t\s*(?P<id>\d+)")),
    _Form("id<TAB>name", re.compile(r"\s*(?P<id>\d+)\t(?P<name>.*\S.*)")),
    _Form("id,name", re.compile(r"\s*(?P<id>\d+)\s*,(?P<name>.*\S.*)"), ("id", "name")),
    _Form("name,id", re.compile(r"(?P<name>.*\S.*),\s*(?P<id>\d+)"), ("name", "id")),
    _Form("id name", re.compile(r"\s*(?P<id>\d+)\s+(?P<name>\S.*)")),
    _Form("name id", re.compile(r"(?P<name>.*\S)\s+(?P<id>\d+)")),
)
"""In the order in which they are tried."""


def output_names(names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """A name for each of a network's outputs; those that no class has are named by their number."""
    return (*names, *map(str, range(len(names), num_classes)))


def read_class_list(
    path: str | Path,
    *,
    unnumbered: Literal["as they stand", "alphabetical"] = "as they stand",
    clean: Callable[[str], str] = str,
) -> tuple[str, ...]:
    """Class names in label order.

    Numbers in a list are the ids, from 0: `name<TAB>id` as in the published list of Kinetics-400, whose order is not
    alphabetical, `id,name` as in a CSV, `id name`, or the other way round; in JSON an object `{name: id}`, as the label
    file of Something-Something V2, or `{id: name}`. One name per line, or a JSON list, counts from 0. Quotes around a
    name are left out. A manifest (.parquet) gives the names it carries. `unnumbered` says how names without ids are
    counted, and `clean` brings a name of a text file into the form in which annotations have it.

    Raises:
        ManifestError: All faults with their lines; ids that count from 1 are one.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        return read_class_names(path)
    faults = Faults(path)
    content = read_content(path)
    listed = _json_list(content)
    if content.lstrip().startswith(b"{"):
        entries = _json_entries(content, clean, faults)
    elif listed is not None:
        entries = _counted_entries(listed, clean, alphabetical=unnumbered == "alphabetical")
    else:
        lines = lines_of(content, faults)
        if (form := _form_of(lines)) is None:
            entries = _counted_entries(lines, clean, alphabetical=unnumbered == "alphabetical")
        else:
            entries = _numbered_entries(lines, form, clean, faults)
    if not len(faults):
        _refuse_ids_from_one(entries, path)
    names = _in_order(entries, len(entries) + len(faults), faults)
    faults.raise_if_any()
    if not names:
        raise ManifestError(f"{path}: holds no classes")
    return names


def _form_of(lines: Sequence[tuple[int, str]]) -> _Form | None:
    """The form that most of the lines have, or the first one says by a header or a tab; None: names alone."""
    for form in _FORMS if lines else ():
        if _is_header(form, lines):
            return form
        found = [match["name"] for _, text in lines if (match := form.line.fullmatch(text))]
        most = 2 * len(found) > len(lines) or ("<TAB>" in form.words and form.line.fullmatch(lines[0][1]))
        # Names may end in a number themselves: `level 1` and `level 2` are two.
        if most and (form.words != "name id" or len(set(found)) == len(found)):
            return form
    return None


def _is_header(form: _Form, lines: Sequence[tuple[int, str]]) -> bool:
    return form.header == tuple(_plain(field).lower() for field in lines[0][1].split(","))


def _counted_entries(
    lines: Sequence[tuple[int, str]], clean: Callable[[str], str], *, alphabetical: bool
) -> list[_Entry]:
    named = [(line, clean(_plain(text))) for line, text in lines]
    if alphabetical:
        named.sort(key=lambda entry: entry[1])
    return [(line, name, str(place)) for place, (line, name) in enumerate(named)]


def _numbered_entries(
    lines: Sequence[tuple[int, str]], form: _Form, clean: Callable[[str], str], faults: Faults
) -> list[_Entry]:
    entries = []
    for line, text in lines[1:] if _is_header(form, lines) else lines:
        match = form.line.fullmatch(text)
        name = "" if match is None else clean(_plain(match["name"]))
        if match is not None and name:
            entries.append((line, name, match["id"]))
        else:
            faults.add(line, f"unreadable line {text[:120]!r}; it must be `{form.words}`, as other lines are")
    return entries


def _json_list(content: bytes) -> list[tuple[int, str]] | None:
    """The names of a JSON list by their lines; None where it's something else (a template begins with `[` as well)."""
    if not content.lstrip().startswith(b"["):
        return None
    try:
        names = json.loads(content)
    except ValueError:
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    return list(zip(_lines_of_strings(content.decode(), names), names, strict=True))


def _lines_of_strings(text: str, strings: Iterable[str]) -> Iterator[int]:
    """The line, from 1, on which each of a JSON text's strings stands; they come in its order."""
    place = 0
    for string in strings:
        place = max(text.find(json.dumps(string, ensure_ascii=False), place), place)
        yield text.count("\n", 0, place) + 1


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
    ids_first = all(key.isdecimal() and isinstance(value, str) and not value.isdecimal() for key, value in pairs)
    entries = []
    for line, (key, value) in zip(_lines_of_strings(text, (key for key, _ in pairs)), pairs, strict=True):
        name, written = (value, key) if ids_first else (key, value)
        digits, name = str(written), clean(_plain(name))
        if name and digits.isdecimal():
            entries.append((line, name, digits))
        else:
            faults.add(line, f"class {key!r} has id {written!r}; it must be a whole number")
    return entries


def _plain(name: str) -> str:
    """A name without the quotes around it; those inside such quotes are doubled, as in a CSV."""
    name = name.strip()
    quoted = re.fullmatch(r'"((?:[^"]|"")*)"', name)
    return name if quoted is None else quoted[1].replace('""', '"').strip()


def _refuse_ids_from_one(entries: Sequence[_Entry], path: Path) -> None:
    """Raise where the ids are 1 to the number of classes: whether annotations count so too, nothing says."""
    names = {int(digits): name for _, name, digits in entries}
    if entries and sorted(names) == list(range(1, len(entries) + 1)):
        raise ManifestError(
            f"{path}: its ids count from 1 ({names[1]!r}) to {len(names)} ({names[len(names)]!r}), they must count "
            "from 0; write the names alone, one a line in that order, and see that the annotations count from 0 too"
        )


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
