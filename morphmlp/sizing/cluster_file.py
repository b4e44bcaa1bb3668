"""Node counts written into a cluster file: only those numbers change, comments and layout stay."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from morphmlp.errors import ConfigError
from morphmlp.files import atomic_write

ROLES = ("train", "ingest")


def with_node_counts(text: str, counts: Mapping[str, int], *, name: str) -> str:
    """A Ray cluster file with so many nodes of each role, all of them from the start.

    `min_workers` and `max_workers` of the node types are set, and the cluster's `max_workers` to their sum (with those
    of other types).

    Args:
        text: The file's.
        counts: Nodes by node type, `train` and `ingest`.
        name: The file's, for errors.

    Raises:
        ConfigError: It isn't such a file, or lacks one of these fields.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError([f"--write {name}: isn't YAML: {' '.join(str(error).split())}"]) from None
    faults: list[str] = []
    changes: list[tuple[yaml.Node, int]] = []

    def scalar(node: yaml.Node | None, path: str, value: int) -> None:
        if not isinstance(node, yaml.ScalarNode):
            faults.append(f"--write {name}: {path}: is missing; set a number there first")
        else:
            changes.append((node, value))

    types = _child(root, "available_node_types")
    others = 0
    if not isinstance(types, yaml.MappingNode):
        raise ConfigError(
            [f"--write {name}: available_node_types: is missing; only Ray's cluster files have node counts"]
        )
    for key, node_type in types.value:
        if key.value not in counts and isinstance(most := _child(node_type, "max_workers"), yaml.ScalarNode):
            others += int(most.value)
    for role, count in counts.items():
        for field in ("min_workers", "max_workers"):
            scalar(_child(_child(types, role), field), f"available_node_types.{role}.{field}", count)
    scalar(_child(root, "max_workers"), "max_workers", sum(counts.values()) + others)
    if faults:
        raise ConfigError(faults)
    for node, value in sorted(changes, key=lambda change: -change[0].start_mark.index):
        text = text[: node.start_mark.index] + str(value) + text[node.end_mark.index :]
    return text


def write_node_counts(path: Path, counts: Mapping[str, int]) -> None:
    """Change the file in place.

    Raises:
        ConfigError: As `with_node_counts`, or the file can't be read or written.
    """
    try:
        text = path.read_text(encoding="utf-8")
        changed = with_node_counts(text, counts, name=str(path))
        atomic_write(path, changed.encode())
    except OSError as error:
        raise ConfigError([f"--write {path}: {error.strerror or error}"]) from None


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
