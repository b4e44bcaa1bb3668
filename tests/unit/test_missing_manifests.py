"""An experiment whose manifests aren't there says, before anything starts, by which command they are made."""

from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.errors import ManifestError
from morphmlp.experiment.data_splits import read_splits

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("experiment", "command"),
    [
        ("k400/morphmlp_s_16x4", "prepare.py k400 --annotations FILE --videos DIR --output MANIFEST.parquet`"),
        ("ssv1/morphmlp_s_16", "prepare.py ssv1 --annotations FILE --videos DIR --output MANIFEST.parquet`"),
        ("ssv2/morphmlp_b_32", "prepare.py ssv2 --annotations FILE --videos DIR --output MANIFEST.parquet`"),
        ("demo/morphmlp_demo", "prepare.py demo --output "),
        ("demo/standin_ssv2", "(a stand-in: `prepare.py standin ssv1|ssv2`)"),
    ],
)
def test_absent_manifests_are_named_together_with_the_command_of_their_data_set(tmp_path, experiment, command):
    absent = {f"data.{split}": str(tmp_path / f"{split}.parquet") for split in ("train", "val", "test")}
    config = load_config(EXPERIMENTS / f"{experiment}.yaml", absent)
    with pytest.raises(ManifestError) as caught:
        read_splits(config)
    for field, path in absent.items():
        assert f"{field} {path}" in str(caught.value)
    assert command in str(caught.value)
