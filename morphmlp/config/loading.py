"""From YAML and dotted overrides to a validated experiment, and back.

Every fault is collected and named by its dotted path before a ConfigError is raised with all of them. A sweep point and
a command-line override are the same thing: a mapping from dotted fields to values.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import JsonValue, TypeAdapter, ValidationError

from morphmlp.config.clip import PIXEL_MEAN, PIXEL_STD
from morphmlp.config.faults import fault_lines, unknown_field, value_fields
from morphmlp.config.schema import ExperimentConfig
from morphmlp.config.segmentation import with_neutral_sections
from morphmlp.errors import ConfigError

_OPERATIONAL_SECTIONS = ("execution", "checkpoint", "ingest", "cluster", "record")
_OPERATIONAL_FIELDS = ("augment.on", "segmentation.test.panels", "start_from.weights", "start_from.class_order")
"""Single fields of other sections that don't define the result. Of two paths `sha256` stands for the content."""
LATER_FIELDS: dict[str, JsonValue] = {
    "task": "classification",
    "segmentation": None,
    "start_from": None,
    "clip.interpolation": "bilinear",
    "clip.centre_rounding": "up",
    "clip.pixel_mean": list(PIXEL_MEAN),
    "clip.pixel_std": list(PIXEL_STD),
    "augment.rand_augment_on": "frames",
    "augment.fill": [128, 128, 128],
    "augment.interpolation": "bilinear",
    "augment.erase_on": "pixels",
    "mixing.prob": 1.0,
    "mixing.switch_prob": 0.5,
    "optim.warmup_lr": None,
    "optim.schedule": "steps",
    "optim.power": None,
    "optim.warmup_steps": None,
    "train.steps": None,
    "train.copies": 1,
    "test.weights": "averaged",
    "train.ema_decay": None,
    "train.freeze": None,
    "train.class_weights": None,
    "train.early_stopping": None,
    "train.early_stopping.steps": None,
    "optim.layer_decay": 1.0,
    "optim.head_lr_factor": 1.0,
    "model.branches": None,
    "model.branch_sum": "weighted",
    "model.group_width": 1.0,
    "model.chunk_shape": "windows",
    "model.chunk_crop_size": None,
    "model.block_order": "temporal_first",
    "model.block_skip": "published",
    "start_from.carry": None,
    "start_from.training_state": False,
    "test.checkpoint": "last",
    "test.crop_size": None,
    "test.short_edge": None,
}
"""Fields that came after the first recorded fingerprints, with their defaults, which are what older runs did. At these
values they are left out, so that the fingerprints of older experiments stay as they are."""
LATER_SECTIONS = ("segmentation", "start_from", "train.early_stopping")
"""Those of them that are sections, or null."""
_EXPERIMENT = TypeAdapter(ExperimentConfig)

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
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: can't be read, it isn't a text in UTF-8: {error.reason}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}{_place_and_fault(error)}"]) from None
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
    """Read an experiment file, put dotted overrides over it, validate the whole; faults of both are raised together."""
    return config_from_mapping(with_overrides(read_yaml(path), overrides or {}))


def check_overrides(overrides: Mapping[str, JsonValue], *, path: str | Path | None) -> None:
    """Find what is wrong with the fields of a command line before anything heavy is imported.

    Without a `path` the experiment isn't known yet, and names of fields are all that can be checked.

    Raises:
        ConfigError: The file can't be used with them, or a field doesn't exist.
    """
    if path is not None:
        load_config(path, overrides)
    elif unknown := sorted(overrides.keys() - value_fields(ExperimentConfig)):
        raise ConfigError([unknown_field(name, value_fields(ExperimentConfig)) for name in unknown])


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
    """Validate a nested mapping; where the task is segmentation it may leave out what belongs to classification."""
    return validated(ExperimentConfig, with_neutral_sections(content))


def validated(schema: type[Value], content: Mapping[str, JsonValue]) -> Value:
    """What a dataclass makes of a nested mapping."""
    try:
        # The strict JSON mode: no silent "16" -> 16 or 1.5 -> 1; lists become tuples.
        return TypeAdapter(schema).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ConfigError(fault_lines(error, schema)) from None
    except TypeError as error:
        raise ConfigError([f"a value is of a kind that no field takes: {error}"]) from None


def config_to_mapping(config: ExperimentConfig) -> dict[str, JsonValue]:
    """The resolved experiment as plain nested values, defaults included."""
    mapping: dict[str, JsonValue] = _EXPERIMENT.dump_python(config, mode="json")
    return mapping


def config_to_yaml(config: ExperimentConfig) -> str:
    """The resolved experiment as YAML that `load_config` reads back to an equal value."""
    return to_yaml(config_to_mapping(config))


def to_yaml(content: Mapping[str, JsonValue]) -> str:
    """A mapping as YAML that `read_yaml` reads back to an equal one; YAML's own writer leaves a text 1e-3 bare."""
    return yaml.dump(dict(content), Dumper=_QuotingDumper, sort_keys=False, default_flow_style=None, width=110)


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
    for dotted in (*_OPERATIONAL_FIELDS, *LATER_FIELDS):
        *sections, field = dotted.split(".")
        place: JsonValue = mapping
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and (dotted in _OPERATIONAL_FIELDS or place.get(field) == LATER_FIELDS[dotted]):
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


def _place_and_fault(error: yaml.YAMLError) -> str:
    """`:LINE: is not valid YAML: ...`, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return f": is not valid YAML: {' '.join(str(error).split())}"
    mark = error.problem_mark or error.context_mark
    fault = error.problem or error.context
    if "'\\t'" in str(fault):
        fault = "a tab where spaces belong"
    return f"{f':{mark.line + 1}' if mark else ''}: is not valid YAML: {fault}"


# PyYAML follows YAML 1.1, where 1e-3 is a text, `on` is true and 12:30 is 750 (docs/decisions/0016-*.md).
class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader with the rules of YAML 1.2 for plain values; keys are unique texts.

    1e-3 is a number; on, off, 2026-11-28 and 12:30 are texts, and so is 010.
    """


class _QuotingDumper(yaml.SafeDumper):
    """YAML's safe dumper; texts that `_UniqueKeyLoader` would take for numbers are quoted."""


def _mapping_with_unique_keys(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            raise _refused("merges another mapping with <<, which isn't read; write its fields out", key)
        name = loader.construct_object(key, deep=True)
        if isinstance(name, int | float) and not isinstance(name, bool):
            raise _refused(f"the number {key.value} where a field's name belongs; decimals have a point", key)
        if isinstance(name, str) and name in seen:
            raise _refused(f"{name} is given twice", key)
        seen.add(str(name))
    # The base class's: it refuses keys that are mappings themselves, as in `{{ name }}`.
    mapping: dict[object, object] = yaml.constructor.BaseConstructor.construct_mapping(loader, node, deep=True)
    return mapping


def _refused(fault: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, fault, node.start_mark)


_NUMBER = (
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_FLOAT = ("tag:yaml.org,2002:float", re.compile(f"({_NUMBER})$"), list("-+.0123456789"))
_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_with_unique_keys)
_UniqueKeyLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", re.compile("(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile("(true|false)$", re.I), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile("([-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    ("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"]),
    _FLOAT,
):
    _UniqueKeyLoader.add_implicit_resolver(_tag, _pattern, _first)
_QuotingDumper.add_implicit_resolver(*_FLOAT)
