"""An experiment whose manifests aren't there says, before anything starts, by which command they are made."""

from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.errors import ManifestError
from morphmlp.experiment.data_splits import read_splits

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("experiment", ["k400/morphmlp_s_16x4", "demo/morphmlp_demo"])
def test_absent_manifests_are_named_together_in_one_line_with_the_commands_that_write_them(tmp_path, experiment):
    absent = {f"data.{split}": str(tmp_path / f"{split}.parquet") for split in ("train", "val", "test")}
    config = load_config(EXPERIMENTS / f"{experiment}.yaml", absent)
    with pytest.raises(ManifestError) as caught:
        read_splits(config)
    [line] = str(caught.value).splitlines()
    for field, path in absent.items():
        assert f"{field} {path}" in line
    for command in ("`folder DIR --output DIR`", "`k400|ssv1|ssv2 --annotations FILE --videos DIR", "`demo`"):
        assert command in line
