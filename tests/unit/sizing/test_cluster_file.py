"""Node counts in a cluster file: read back by YAML, and nothing else touched."""

from pathlib import Path

import pytest
import yaml

from morphmlp.errors import ConfigError
from morphmlp.sizing.cluster_file import with_node_counts, write_node_counts

CLUSTER = (Path(__file__).parents[3] / "cluster.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("train", "ingest"), [(1, 1), (16, 120), (2, 0)])
def test_only_the_counts_change(train, ingest):
    found = with_node_counts(CLUSTER, {"train": train, "ingest": ingest}, name="cluster.yaml")
    was, now = (yaml.load(text, Loader=yaml.BaseLoader) for text in (CLUSTER, found))  # reads tags of blanks too
    for role, number in (("train", train), ("ingest", ingest)):
        count = str(number)
        node_type = now["available_node_types"][role]
        assert (node_type["min_workers"], node_type["max_workers"]) == (count, count)
        was["available_node_types"][role] |= {"min_workers": count, "max_workers": count}
    was["max_workers"] = str(train + ingest)
    assert now == was
    assert [line for line in found.splitlines() if "_workers:" not in line] == [
        line for line in CLUSTER.splitlines() if "_workers:" not in line
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "isn't YAML"),
        ("max_workers: 2", "available_node_types: is missing"),
        ("", "available_node_types: is missing"),
        (CLUSTER.replace("  ingest:\n", "  decode:\n"), "available_node_types.ingest.min_workers: is missing"),
        (CLUSTER.replace("max_workers: 6\n", ""), r"max_workers: is missing"),
    ],
)
def test_what_is_no_such_file_stays_as_it_is(tmp_path, text, fault):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=fault):
        write_node_counts(path, {"train": 2, "ingest": 2})
    assert path.read_text() == text


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--write .*gone.yaml: No such file"):
        write_node_counts(tmp_path / "gone.yaml", {"train": 2, "ingest": 2})
