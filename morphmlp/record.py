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
    VERDICT = "morphmlp.verdict"
    """What held the run up, in words."""
    MODEL = "morphmlp.model"
    """The preset's name, where the network is one."""
    START_FROM = "morphmlp.start_from"
    """Weights that training started from: file, content, what was done to them; none where they were fresh."""
    TESTED = "morphmlp.tested"
    """The checkpoint that was tested: the last or the best, its step and validation top-1."""
    PARENT = "mlflow.parentRunId"
    """Run id of the sweep that a trial belongs to; MLflow's own name, by which it nests runs."""
    KIND = "morphmlp.kind"
    """`sweep` for a sweep's own run, `trial` for one of its points; runs outside of sweeps have none."""
    POINT = "morphmlp.point"
    """Of a trial: the fields that the sweep set and their values, as JSON."""
    ERROR = "morphmlp.error"
    """Why a trial ended early; empty where it was tried again and finished."""
    TRIAL_STATE = "morphmlp.trial.state"
    """How a trial ended: `finished`, `stopped`, `timed_out`, `diverged`, `failed`."""
    TRIAL_NUMBER = "morphmlp.trial.number"
    """From 1, in the order of the sweep."""
    TRIAL_SEED = "morphmlp.trial.seed"
    TRIAL_TITLE = "morphmlp.trial.title"
    """The point's values as people read them; by it seeds are grouped."""
    TRIAL_REPLACES = "morphmlp.trial.replaces"
    """The values that were asked for in the place of the point's, as JSON; none where it is as it was asked for."""
    VERSION = "morphmlp.version."
    """Prefix of the package versions."""
    RESUMED_WITH = "morphmlp.resumed_with."
    """Prefix of parameters whose value changed when the run was resumed; the parameter keeps its first value."""
    EVENTS = "morphmlp.events"
    """How many restarts, resizes and the like the run had, and the last one; all are in the artifact `events.jsonl`."""


class Metrics:
    """Names of the metrics. `train/` by step (`train/epoch_loss` by epoch), `val/`, `epoch/` by epoch, others once."""

    TRAIN_LOSS = "train/loss"
    TRAIN_LR = "train/lr"
    TRAIN_GRAD_NORM = "train/grad_norm"
    TRAIN_STEP_S = "train/step_s"
    """Mean over a report's steps, seconds; so are the next four. Of it: waiting for data, computing, all-reduce."""
    TRAIN_DATA_WAIT_S = "train/data_wait_s"
    TRAIN_COMPUTE_S = "train/compute_s"
    TRAIN_ALL_REDUCE_S = "train/all_reduce_s"
    """Exchanging gradients, and waiting for slower workers."""
    TRAIN_OTHER_S = "train/other_s"
    """Beside the steps, for each of them: validation, snapshots, reports."""
    TRAIN_START_S = "train/start_s"
    """From workers being ready to their first batch; a point at each start. It's part of no other time or rate."""
    TRAIN_CLIPS_PER_S = "train/clips_per_s"
    """Over all workers, by the time from report to report."""
    TRAIN_GMACS_PER_S = "train/gmacs_per_s"
    """The same in billion multiply-accumulates, three forward passes a clip."""
    TRAIN_CPU_S_PER_CLIP = "train/cpu_s_per_clip"
    """CPU core-seconds of decoding."""
    TRAIN_SKIPPED_STEPS = "train/skipped_steps"
    """Steps since the last point whose loss or gradient wasn't finite; no point where there are none."""
    TRAIN_WORKERS = "train/workers"
    """A point at each start of the workers."""
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
    EPOCH_CLIPS_PER_S = "epoch/clips_per_s"
    """As `train/` and `run/` name them, by epoch; so are the next four."""
    EPOCH_GMACS_PER_S = "epoch/gmacs_per_s"
    EPOCH_STALL_SHARE = "epoch/stall_share"
    EPOCH_CPU_S_PER_CLIP = "epoch/cpu_s_per_clip"
    EPOCH_WORKER_HOURS = "epoch/worker_hours"
    RUN_WALL_S = "run/wall_s"
    RUN_WORKER_HOURS = "run/worker_hours"
    """Hours of one training worker, each time added up that steps were repeated."""
    RUN_GPU_HOURS = "run/gpu_hours"
    """The same where workers have GPUs; else 0."""
    RUN_DECODE_CORE_HOURS = "run/decode_core_hours"
    """CPU time of decoding."""
    RUN_COST = "run/cost"
    """Of what has a price (`cluster.gpu_hour_price`, `cluster.cpu_hour_price`); no point where nothing has one."""
    RUN_STALL_SHARE = "run/stall_share"
    """Share of the workers' time spent waiting for data, 0 to 1."""
    RUN_ALL_REDUCE_SHARE = "run/all_reduce_share"
    RUN_CLIPS_PER_S = "run/clips_per_s"
    """Clips over training time, without the time of starting."""
    RUN_GMACS_PER_S = "run/gmacs_per_s"
    RUN_CPU_S = "run/cpu_s"
    """CPU core-seconds of all its processes: workers, decode tasks, scorers and the driver's share."""
    RUN_CPU_S_PER_CLIP = "run/cpu_s_per_clip"
    TRIAL_GMACS = "trial/gmacs"
    """Of a sweep's trial: billion multiply-accumulates of one view."""
    TRIAL_PARAMS = "trial/params"
    TRIAL_EPOCHS = "trial/epochs"
    """Epochs trained and validated."""
    RUN_EVENTS = "run/events"
    """Restarts, resizes and the like so far; the step is the event's number."""


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
