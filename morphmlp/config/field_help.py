"""The fields of an experiment as `--help` shows them: option, form of its values, meaning, and value in a file."""

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import JsonValue

from morphmlp.config.faults import forms_of
from morphmlp.config.loading import flat_fields
from morphmlp.config.schema import ExperimentConfig

_FORMS: dict[object, str] = {int: "INT", float: "FLOAT", str: "TEXT", bool: "true|false", NoneType: "null"}


def help_sections(config: ExperimentConfig) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Title and rows (option with its form, meaning with its value) of each section, in the order of the schema.

    A section that the experiment doesn't have is shown with its own defaults.
    """
    yield from _sections(ExperimentConfig, "", flat_fields(config))


def _sections(owner: type, prefix: str, values: dict[str, JsonValue]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    meanings = field_docstrings(owner)
    rows, inner = [], []
    for field in dataclasses.fields(owner):
        dotted = f"{prefix}{field.name}"
        if section := _section(field.type):
            inner.append((section, f"{dotted}."))
        else:
            option = f"--{dotted.replace('_', '-')} {_form(field.type)}"
            value = _text(values, dotted, field.default)
            rows.append((option, meanings[field.name] + (f" (default: {value})" if value is not None else "")))
    what = str(owner.__doc__).splitlines()[0].removesuffix(".")
    yield f"{prefix.removesuffix('.')} - {what}" if prefix else what, rows
    for section, section_prefix in inner:
        yield from _sections(section, section_prefix, values)


def field_docstrings(owner: type) -> dict[str, str]:
    """The text under each field of a dataclass, on one line; read from its source, since Python doesn't keep it."""
    (tree,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _section(annotation: object) -> type | None:
    """The dataclass of a field that is a section; a field that takes plain values too is none."""
    forms = [form for form in forms_of(annotation) if form is not NoneType]
    return forms[0] if len(forms) == 1 and isinstance(forms[0], type) and dataclasses.is_dataclass(forms[0]) else None


def _form(annotation: Any) -> str:
    return "|".join(dict.fromkeys(map(_one_form, forms_of(annotation))))


def _one_form(form: Any) -> str:
    if get_origin(form) is Literal:
        return "|".join(map(str, get_args(form)))
    if get_origin(form) is tuple:
        inner = [_form(argument) if argument is not Ellipsis else "..." for argument in get_args(form)]
        return " ".join(inner)
    if isinstance(form, type) and dataclasses.is_dataclass(form):
        return "{" + ", ".join(f"{field.name}: {_form(field.type)}" for field in dataclasses.fields(form)) + "}"
    return _FORMS.get(form, "{NAME: TEXT}" if get_origin(form) is dict else "VALUE")


def _text(values: dict[str, JsonValue], dotted: str, default: Any) -> str | None:
    """A value as one types it after its option; None for one that must be given."""
    inner = {name.rpartition(".")[2]: value for name, value in values.items() if name.startswith(f"{dotted}.")}
    if inner or dotted in values:
        return _typed(inner or values[dotted])
    return None if default is dataclasses.MISSING else _typed(default)


def _typed(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_typed(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return " ".join(map(_typed, value))
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
