"""What a run's record consists of: the names of its tags and metrics, and its values.

Knows no store, so that whoever only draws or compares numbers needn't import one; `tracking.py` writes and reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run can end."""


class Tags:
    """Names of the tags that a run carries. A run's MLflow experiment is its data set (`k400`, `demo`, ...)."""

    EXPERIMENT = "morphmlp.experiment"
    """The configuration's name."""
    FINGERPRINT = "morphmlp.fingerprint"
    GIT_COMMIT = "morphmlp.git_commit"
    GIT_DIRTY = "morphmlp.git_dirty"
    """`true`, `false` or `unknown`."""
    DATA_TRAIN = "morphmlp.data.train"
    """`N:hash` of the split's video ids; so are the next two."""
    DATA_VAL = "morphmlp.data.val"
    DATA_TEST = "morphmlp.data.test"
    PREPARED = "morphmlp.prepared."
    """Prefix, before `train`, `val` or `test`: how the copies were made that the split's manifest names; none where it
    names originals."""
    DECODER = "morphmlp.decoder"
    """Backend and version, as in `pyav 18.1.0`."""
    HARDWARE = "morphmlp.hardware"
    TRAINED_ON = "morphmlp.trained_on"
    """Training workers and their device."""
    PRECISION = "morphmlp.precision"
    """What `auto` became."""
    MODEL = "morphmlp.model"
    """The preset's name, where the network is one."""
    PARENT = "mlflow.parentRunId"
    """Run id of the sweep that a trial belongs to; MLflow's own name, by which it nests runs."""
    KIND = "morphmlp.kind"
    """`sweep` for a sweep's own run, `trial` for one of its points; runs outside of sweeps have none."""
    POINT = "morphmlp.point"
    """Of a trial: the fields that the sweep set and their values, as JSON."""
    ERROR = "morphmlp.error"
    """Why a trial failed."""
    VERSION = "morphmlp.version."
    """Prefix of the package versions."""
    RESUMED_WITH = "morphmlp.resumed_with."
    """Prefix of parameters whose value changed when the run was resumed; the parameter keeps its first value."""


class Metrics:
    """Names of the metrics. `train/` by step (`train/epoch_loss` by epoch), `val/` by epoch, others once."""

    TRAIN_LOSS = "train/loss"
    TRAIN_LR = "train/lr"
    TRAIN_GRAD_NORM = "train/grad_norm"
    TRAIN_DATA_WAIT_S = "train/data_wait_s"
    TRAIN_STEP_S = "train/step_s"
    TRAIN_CLIPS_PER_S = "train/clips_per_s"
    TRAIN_EPOCH_LOSS = "train/epoch_loss"
    VAL_LOSS = "val/loss"
    VAL_TOP1 = "val/top1"
    VAL_TOP5 = "val/top5"
    VAL_NUM_VIDEOS = "val/num_videos"
    TEST_TOP1 = "test/top1"
    TEST_TOP5 = "test/top5"
    TEST_NUM_VIDEOS = "test/num_videos"
    TEST_NUM_QUARANTINED = "test/num_quarantined"
    TRAIN_CONCEALED = "train/concealed_frames"
    """Frames since the last point that stand in for damaged ones, all workers; no point where there are none."""
    TRAIN_RETRIED = "train/retried_videos"
    """Videos since the last point that only the second decoder could read, all workers; as above."""
    TEST_CONCEALED = "test/concealed_frames"
    TEST_RETRIED = "test/retried_videos"
    RUN_WALL_S = "run/wall_s"


@dataclass(frozen=True)
class MetricPoint:
    """One value of one metric."""

    key: str
    value: float
    step: int
    """Optimiser step or epoch, whichever the metric goes by."""
    timestamp_ms: int
    """Milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run as the store knows it; metrics are the latest values."""

    run_id: str
    run_name: str
    experiment: str
    status: str
    start_ms: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
