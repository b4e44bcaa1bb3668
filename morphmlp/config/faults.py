"""What is wrong with a mapping, in a user's words: the dotted field, its value, and what would be right."""

import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_FORM = re.compile(r"constrained-\w+$|[\w-]+\[.*\]$")
_WRONG_FORM = ("int_type", "literal_error", "tuple_type", "dataclass_type")
_COMMA = re.compile(r"[-+]?\d+,\d+")
_WORDS_FOR_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def fault_lines(error: ValidationError, schema: type) -> list[str]:
    """All faults that pydantic found, a line each, led by its dotted path; the schema's fields are proposed."""
    names = all_fields(schema)
    return [line for detail in _reported_once(error.errors()) for line in _lines(detail, names)]


def unknown_field(dotted: str, known: Collection[str], *, where: str = "") -> str:
    """The line for a field that there isn't, with the one that may have been meant; `where` leads it (`space.`)."""
    meant = proposed(dotted, known)
    return f"{where}{dotted}: unknown field" + (f"; did you mean {' or '.join(meant)}?" if meant else "")


def proposed(dotted: str, known: Collection[str]) -> list[str]:
    """The fields that may have been meant: in the section with a similar name, elsewhere with this one, or alike.

    Of several of one name those that lie deepest in sections are left out: `epochs` means `train.epochs`.
    """
    section, _, name = dotted.rpartition(".")
    siblings = {field.rpartition(".")[2]: field for field in known if field.rpartition(".")[0] == section}
    if close := get_close_matches(name, siblings, n=1, cutoff=0.7):
        return [siblings[close[0]]]
    if elsewhere := sorted(field for field in known if field.rpartition(".")[2] == name):
        least = min(field.count(".") for field in elsewhere)
        return [field for field in elsewhere if field.count(".") == least]
    return [] if section in known else get_close_matches(dotted, known, n=1, cutoff=0.75)


@cache
def all_fields(schema: type) -> frozenset[str]:
    """Every dotted field of a dataclass, sections included."""
    return frozenset(dotted for dotted, _ in _fields_of(schema, ""))


@cache
def value_fields(schema: type) -> frozenset[str]:
    """Every dotted field of a dataclass that can be set: values, and sections that may be left out as a whole."""
    return frozenset(dotted for dotted, is_value in _fields_of(schema, "") if is_value)


def _fields_of(schema: type, prefix: str) -> Iterator[tuple[str, bool]]:
    for entry in dataclasses.fields(schema):
        dotted = f"{prefix}{entry.name}"
        forms = list(forms_of(entry.type))
        sections = [form for form in forms if isinstance(form, type) and dataclasses.is_dataclass(form)]
        for section in sections:
            yield from _fields_of(section, f"{dotted}.")
        yield dotted, not sections or len(forms) > 1


def forms_of(annotation: object) -> Iterator[object]:
    """The forms that a field may take, as `int` and `None` of `PositiveInt | None`."""
    if get_origin(annotation) is Annotated:
        yield from forms_of(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for form in get_args(annotation):
            yield from forms_of(form)
    else:
        yield annotation


def _reported_once(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The faults without pydantic's names for the forms that a field may take; a value of no form is one fault."""
    wrong_form: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    reported: list[ErrorDetails] = []
    for detail in details:
        loc = detail["loc"]
        place = tuple(part for part in loc if not (isinstance(part, str) and _FORM.match(part)))
        if len(place) == len(loc) - 1 and loc[:-1] == place and detail["type"] in _WRONG_FORM:
            wrong_form.setdefault(place, []).append(detail)
        else:
            reported.append({**detail, "loc": place})
    for place, forms in wrong_form.items():
        if not any(detail["loc"][: len(place)] == place for detail in reported):
            wanted = " or ".join(form["msg"].removeprefix("Input should be ") for form in forms)
            reported.append({**forms[0], "loc": place, "msg": f"Input should be {wanted}"})
    return reported


def _lines(detail: ErrorDetails, names: Collection[str]) -> list[str]:
    dotted = _dotted(detail["loc"], names)
    if detail["type"] == "unexpected_keyword_argument":
        return [unknown_field(dotted, names)]
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return [f"{dotted}: is missing and has no default"]
    if detail["type"] == "union_tag_not_found":
        return [f"{dotted}.kind: is missing and has no default"]
    if detail["type"] == "union_tag_invalid":
        expected, tag = detail["ctx"]["expected_tags"], detail["ctx"]["tag"]
        detail = {**detail, "type": "literal_error", "msg": f"Input should be one of {expected}", "input": tag}
        dotted = f"{dotted}.kind"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        # The sections' own validators write whole lines; those of the root already carry their dotted field.
        return [f"{dotted}.{line}" if dotted else line for line in message.splitlines()]
    return [f"{dotted}: {message[0].lower()}{message[1:]}, got {detail['input']!r}{_right(detail)}"]


def _dotted(loc: Sequence[int | str], names: Collection[str]) -> str:
    """The path as the file has it, without pydantic's names for the kinds of a section."""
    dotted = ""
    for index, part in enumerate(loc):
        further = f"{dotted}.{part}" if dotted else str(part)
        inside = any(name.startswith(f"{dotted}.") for name in names)
        if index < len(loc) - 1 and inside and further not in names:
            continue  # as `random` in search.random.num_points
        dotted = further
    return dotted


def _right(detail: ErrorDetails) -> str:
    """What would be right, where a value of the wrong type shows what was meant; led by a semicolon."""
    value, wanted = detail["input"], detail["type"]
    right = ""
    if wanted in ("float_type", "int_type") and isinstance(value, str):
        right = "write a number" if wanted == "float_type" else "write a whole number"
        if _COMMA.match(value):
            right = f"decimals have a point: {value.replace(',', '.')}"
    elif wanted == "int_type" and isinstance(value, float) and value.is_integer():
        right = f"write {int(value)}"
    elif wanted == "bool_type" and isinstance(value, str):
        right = f"write {_WORDS_FOR_BOOLEANS.get(value.lower(), 'true or false')}"
    elif wanted == "string_type" and isinstance(value, int | float):
        right = f"in quotes it is a text: '{value}'"
    elif wanted == "literal_error" and isinstance(value, str):
        close = get_close_matches(value, re.findall(r"'([^']*)'", detail["msg"]), n=1, cutoff=0.7)
        right = f"did you mean '{close[0]}'?" if close else ""
    return f"; {right}" if right else ""
