"""Experiments put together from sections that are each validated once.

The same as `config_from_mapping` makes of the complete content, faster where many points share their sections.
"""

import json
from collections.abc import Mapping
from typing import get_type_hints

from pydantic import JsonValue, TypeAdapter, ValidationError

from morphmlp.config import ExperimentConfig, config_from_mapping, with_overrides
from morphmlp.errors import ConfigError

_EXPERIMENT = TypeAdapter(ExperimentConfig)
_SECTIONS: dict[str, TypeAdapter[object]] = {
    section: TypeAdapter(kind) for section, kind in get_type_hints(ExperimentConfig, include_extras=True).items()
}
_FAULTY = object()


class Assembly:
    """Makes experiments that differ from one another in some dotted fields."""

    def __init__(self, shared: Mapping[str, JsonValue]) -> None:
        """Take what they share.

        Args:
            shared: Content of an experiment; it needn't be valid without the fields that differ.
        """
        self._shared = shared
        self._known: dict[str, object] = {}
        self._unchanged = {section: self._section(section, {}) for section in shared}

    def parts(self, values: Mapping[str, JsonValue]) -> dict[str, object]:
        """The sections with these values; those that have faults of their own are left out."""
        changes: dict[str, dict[str, JsonValue]] = {}
        for dotted, value in values.items():
            changes.setdefault(_section_of(dotted), {})[dotted] = value
        changed = {section: self._section(section, fields) for section, fields in changes.items()}
        return {name: part for name, part in {**self._unchanged, **changed}.items() if part is not _FAULTY}

    def config(self, values: Mapping[str, JsonValue], parts: Mapping[str, object] | None = None) -> ExperimentConfig:
        """The experiment with these values.

        Args:
            values: Dotted fields and what they are.
            parts: What `parts` gave for them, where that is at hand.

        Raises:
            ConfigError: All its faults, each led by its dotted path.
        """
        parts = self.parts(values) if parts is None else parts
        if parts.keys() >= self._unchanged.keys() and all(_section_of(dotted) in parts for dotted in values):
            try:
                return _EXPERIMENT.validate_python(parts)
            except ValidationError:
                pass  # raised below with all faults, as for a file
        return config_from_mapping(with_overrides(self._shared, values))

    def _section(self, section: str, changes: Mapping[str, JsonValue]) -> object:
        key = f"{section} {changes!r}"  # where 1, 1.0 and True are different
        if key not in self._known:
            self._known[key] = self._validated(section, changes)
        return self._known[key]

    def _validated(self, section: str, changes: Mapping[str, JsonValue]) -> object:
        if section not in _SECTIONS:
            return _FAULTY
        own = {section: self._shared[section]} if section in self._shared else {}
        try:
            content = with_overrides(own, changes)
            return _SECTIONS[section].validate_json(json.dumps(content[section]), strict=True)
        except (ConfigError, ValidationError, TypeError):
            return _FAULTY


def _section_of(dotted: str) -> str:
    return dotted.partition(".")[0]
