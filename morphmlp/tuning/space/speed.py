"""How fast this hardware trains, as far as the record knows: what a plan's hours are reckoned from."""

from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import read_manifest
from morphmlp.environment import hardware
from morphmlp.errors import MorphMLPError
from morphmlp.record import Metrics, Tags
from morphmlp.tracking import read_runs, tracking_uri
from morphmlp.tuning.space.plan import TrainingSpeed


def known_speed(dataset: str) -> TrainingSpeed | None:
    """The speed of the newest finished run of a data set on this hardware; None where there is none."""
    try:
        runs = read_runs(tracking_uri(), dataset=dataset)
    except MorphMLPError:
        return None
    speed, where = f"metrics.{Metrics.RUN_GMACS_PER_S}", f"tags.{Tags.HARDWARE}"
    if runs.empty or speed not in runs or where not in runs:
        return None
    same = runs[(runs[where] == hardware()) & runs[speed].gt(0)]
    if same.empty:
        return None
    newest = same.iloc[0]
    return TrainingSpeed(gmacs_per_s=float(newest[speed]), source=f"run {newest['run_name']}")


def num_train_videos(config: ExperimentConfig) -> int | None:
    """Videos of an experiment's training manifest; None where it isn't there (yet)."""
    try:
        return len(read_manifest(config.data.train, only=["video_id"]))
    except MorphMLPError:
        return None
