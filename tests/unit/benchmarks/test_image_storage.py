"""What reading one image costs, on a few of them: bytes add up, and the way through row groups reads all of them."""

import pytest

from morphmlp.benchmarks import image_storage
from morphmlp.benchmarks.image_storage import measure_image_storage, storage_table


def test_only_row_groups_read_more_than_the_blocks_of_an_image(tmp_path, monkeypatch):
    monkeypatch.setattr(image_storage, "NUM_IMAGES", 6)
    costs = {cost.form: cost for cost in measure_image_storage(tmp_path, rounds=1, on_round=lambda number: None)}
    ratios = {form: cost.bytes_ratio for form, cost in costs.items()}
    assert (ratios["tar"], ratios["Parquet, none"]) == (1.0, 1.0)
    assert 1.0 < ratios["Parquet, Snappy"] < 2.2
    assert ratios["Parquet, Snappy, by row groups"] == pytest.approx(6, rel=0.01)
    assert len(storage_table(list(costs.values())).splitlines()) == 1 + len(costs)
