"""From YAML and dotted overrides to a validated experiment, and back.

Every fault is collected and named by its dotted path before anything is raised. A sweep point and a
command-line override are the same thing: a mapping from dotted fields to values.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from morphmlp.config.schema import ExperimentConfig
from morphmlp.errors import ConfigError

_OPERATIONAL_SECTIONS = ("execution", "checkpoint", "ingest", "cluster")
_OPERATIONAL_FIELDS = ("augment.on", "start_from.weights", "start_from.class_order")
"""Of the two paths their `sha256` tells the content."""
_LEFT_OUT_WHEN_NULL = ("start_from", "train.ema_decay", "model.branches", "start_from.carry")
"""Younger than the first fingerprints: where they aren't used, those stay as they are."""
_EXPERIMENT = TypeAdapter(ExperimentConfig)
_FORM = re.compile(r"constrained-\w+$|[\w-]+\[.*\]$")
_WRONG_FORM = ("int_type", "literal_error", "tuple_type", "dataclass_type")

Value = TypeVar("Value")


def read_yaml(path: str | Path) -> dict[str, JsonValue]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: No such file, no YAML, a repeated key, or something else than a mapping.
    """
    path = Path(path)
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: can't be read: {error}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: is not valid YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(content, dict):
        raise ConfigError([f"{path}: holds {type(content).__name__}, not `field: value` lines"])
    return content


def parse_yaml(text: str) -> JsonValue:
    """The value that a YAML text holds; a command-line override's value is read the same way.

    Raises:
        yaml.YAMLError: The text isn't YAML, or a key is given twice.
    """
    value: JsonValue = yaml.load(text, Loader=_UniqueKeyLoader)
    return value


def load_config(path: str | Path, overrides: Mapping[str, JsonValue] | None = None) -> ExperimentConfig:
    """Read an experiment file, put dotted overrides over it, validate the whole.

    Raises:
        ConfigError: All faults of file and overrides together, each led by its dotted path.
    """
    return config_from_mapping(with_overrides(read_yaml(path), overrides or {}))


def with_overrides(content: Mapping[str, JsonValue], overrides: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A copy of a nested mapping with dotted fields replaced (`{"model.depths": [1, 1, 2, 1]}`)."""
    result = deepcopy(dict(content))
    for dotted, value in overrides.items():
        *sections, leaf = dotted.split(".")
        place: dict[str, JsonValue] = result
        for section in sections:
            if place.get(section) is None:
                place[section] = {}
            inner = place[section]
            if not isinstance(inner, dict):
                raise ConfigError([f"{dotted}: {section} is {inner!r}, not a section"])
            place = inner
        place[leaf] = value
    return result


def config_from_mapping(content: Mapping[str, JsonValue]) -> ExperimentConfig:
    """Validate a nested mapping.

    Raises:
        ConfigError: All faults, each led by its dotted path.
    """
    return validated(_EXPERIMENT, content)


def validated(schema: TypeAdapter[Value], content: Mapping[str, JsonValue]) -> Value:
    """What a schema makes of a nested mapping.

    Raises:
        ConfigError: All faults, each led by its dotted path.
    """
    try:
        # The strict JSON mode: no silent "16" -> 16 or 1.5 -> 1; lists become tuples.
        return schema.validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ConfigError([line for detail in _told_once(error.errors()) for line in _fault_lines(detail)]) from None
    except TypeError as error:
        raise ConfigError([f"a value is of a kind that no field takes: {error}"]) from None


def config_to_mapping(config: ExperimentConfig) -> dict[str, JsonValue]:
    """The resolved experiment as plain nested values, defaults included."""
    mapping: dict[str, JsonValue] = _EXPERIMENT.dump_python(config, mode="json")
    return mapping


def config_to_yaml(config: ExperimentConfig) -> str:
    """The resolved experiment as YAML that `load_config` reads back to an equal value."""
    return yaml.dump(
        config_to_mapping(config), Dumper=_QuotingDumper, sort_keys=False, default_flow_style=None, width=110
    )


def flat_fields(config: ExperimentConfig) -> dict[str, JsonValue]:
    """The resolved experiment as `{dotted field: value}`."""
    flat: dict[str, JsonValue] = {}

    def walk(prefix: str, value: JsonValue) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", config_to_mapping(config))
    return flat


def fingerprint(config: ExperimentConfig) -> str:
    """Twelve hex digits over the fields that define the result.

    Left out: the name, the manifests' paths (the data fingerprint stands for their content) and whatever says how a run
    is carried out.
    """
    mapping = config_to_mapping(config)
    for section in ("name", "data", *_OPERATIONAL_SECTIONS):
        del mapping[section]
    for dotted in (*_OPERATIONAL_FIELDS, *_LEFT_OUT_WHEN_NULL):
        *sections, field = dotted.split(".")
        place: JsonValue = mapping
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and (dotted in _OPERATIONAL_FIELDS or place.get(field) is None):
            place.pop(field, None)
    return hashlib.sha256(json.dumps(mapping, sort_keys=True).encode()).hexdigest()[:12]


def changed_fields(old: ExperimentConfig, new: ExperimentConfig) -> list[str]:
    """Lines `field: old -> new` for every result-defining field that differs; a section that is new or gone is one."""
    return sorted(_changes("", config_to_mapping(old), config_to_mapping(new)))


def _changes(where: str, old: JsonValue, new: JsonValue) -> Iterator[str]:
    if old == new or where in ("name", "data", *_OPERATIONAL_SECTIONS, *_OPERATIONAL_FIELDS):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _changes(f"{where}.{key}" if where else key, old.get(key), new.get(key))
    else:
        yield f"{where}: {old} -> {new}"


def _told_once(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The faults without pydantic's names for the forms that a field may take; a value of no form is one fault."""
    wrong_form: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    told: list[ErrorDetails] = []
    for detail in details:
        loc = detail["loc"]
        place = tuple(part for part in loc if not (isinstance(part, str) and _FORM.match(part)))
        if len(place) == len(loc) - 1 and loc[:-1] == place and detail["type"] in _WRONG_FORM:
            wrong_form.setdefault(place, []).append(detail)
        else:
            told.append({**detail, "loc": place})
    for place, forms in wrong_form.items():
        if not any(detail["loc"][: len(place)] == place for detail in told):
            wanted = " or ".join(form["msg"].removeprefix("Input should be ") for form in forms)
            told.append({**forms[0], "loc": place, "msg": f"Input should be {wanted}"})
    return told


def _fault_lines(detail: ErrorDetails) -> list[str]:
    dotted = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "unexpected_keyword_argument":
        return [f"{dotted}: unknown field"]
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return [f"{dotted}: is missing and has no default"]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        # The sections' own validators write whole lines; those of the root already carry their dotted field.
        return [f"{dotted}.{line}" if dotted else line for line in message.splitlines()]
    return [f"{dotted}: {message[0].lower()}{message[1:]}, got {detail['input']!r}"]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader with two rules of YAML 1.2: 1e-3 is a number, and on and off are words; keys are unique."""


class _QuotingDumper(yaml.SafeDumper):
    """YAML's safe dumper; texts that `_UniqueKeyLoader` would take for numbers are quoted."""


def _mapping_with_unique_keys(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[object, object]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    repeated = {str(key) for key in keys if keys.count(key) > 1}
    if repeated:
        raise yaml.constructor.ConstructorError(
            None, None, f"given twice: {', '.join(sorted(repeated))}", node.start_mark
        )
    # The base class's: it refuses keys that are mappings themselves, as in `{{ name }}`.
    mapping: dict[object, object] = yaml.constructor.BaseConstructor.construct_mapping(loader, node, deep=True)
    return mapping


_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_with_unique_keys)
_UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_UniqueKeyLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|false)$", re.I), list("tTfF"))
for _yaml in (_UniqueKeyLoader, _QuotingDumper):
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
