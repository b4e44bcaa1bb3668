"""Where points come from."""

from pathlib import Path

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig
from morphmlp.tuning.search.point_source import ListedPoints
from morphmlp.tuning.space.space import expand

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"


def test_listed_points_come_once_each_and_in_their_order_whatever_is_told():
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides={}, space={"optim.lr": (0.3, 0.1, 0.2)})
    source = ListedPoints(expand(sweep, read_yaml(SMALL)).points)
    found = []
    while (point := source.next()) is not None:
        found.append(point.values["optim.lr"])
        source.tell(point, None)
    assert found == [0.3, 0.1, 0.2]
    assert source.next() is None
