"""What a run's record consists of: the names of its tags and metrics, and its values.

`morphmlp.tracking` writes and reads it. Whoever only draws or compares numbers needs no more than this.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run can end."""


class Tags:
    """Names of the tags that a run carries. A run's MLflow experiment is its data set (`k400`, `demo`, ...)."""

    EXPERIMENT = "morphmlp.experiment"
    """The configuration's name."""
    FINGERPRINT = "morphmlp.fingerprint"
    """Hash of the fields that define the result."""
    GIT_COMMIT = "morphmlp.git_commit"
    """The commit of the working directory, what MORPHMLP_GIT_COMMIT names without one, or `unknown`."""
    GIT_DIRTY = "morphmlp.git_dirty"
    """Whether files differed from the commit: `true`, `false` or `unknown`."""
    CODE = "morphmlp.code"
    """Git's tree of the package that ran: `git rev-parse COMMIT:morphmlp` of the commit that has it."""
    DATA_TRAIN = "morphmlp.data.train"
    """`N:hash` of the training videos' ids."""
    DATA_VAL = "morphmlp.data.val"
    """`N:hash` of the validation videos' ids."""
    DATA_TEST = "morphmlp.data.test"
    """`N:hash` of the test videos' ids."""
    PREPARED = "morphmlp.prepared."
    """Prefix, before `train`, `val` or `test`: how the copies were made that the split's manifest names; none where it
    names originals."""
    DECODER = "morphmlp.decoder"
    """Backend and version, as in `pyav 18.1.0`."""
    HARDWARE = "morphmlp.hardware"
    TRAINED_ON = "morphmlp.trained_on"
    """Number of training workers and their device."""
    PRECISION = "morphmlp.precision"
    """What `auto` became."""
    VERDICT = "morphmlp.verdict"
    """What held the run up, in words."""
    MODEL = "morphmlp.model"
    """The preset's name, where the network is one."""
    START_FROM = "morphmlp.start_from"
    """Weights that training started from: file, content, what was done to them; none where they were fresh."""
    TESTED = "morphmlp.tested"
    """The checkpoint that was tested: the last or the best, its step and validation score."""
    EVALUATES = "morphmlp.evaluates"
    """Of an evaluation: the MLflow id of the run whose weights it tests; empty where no run is known."""
    WEIGHTS = "morphmlp.weights"
    """SHA-256 of the tensors that were tested."""
    PARENT = "mlflow.parentRunId"
    """Run id of the sweep that a trial belongs to; MLflow's own name, by which it nests runs."""
    SOURCE_NAME = "mlflow.source.name"
    """The script that was started, from the repository's root; this and the next six are MLflow's own names."""
    SOURCE_TYPE = "mlflow.source.type"
    """`JOB` for a command that was submitted to a cluster, else `LOCAL`."""
    SOURCE_COMMIT = "mlflow.source.git.commit"
    """As `morphmlp.git_commit`; none where it is unknown."""
    SOURCE_BRANCH = "mlflow.source.git.branch"
    """Git's branch, where the code is on one."""
    SOURCE_REPOSITORY = "mlflow.source.git.repoURL"
    """The address of git's remote `origin`, without a login."""
    USER = "mlflow.user"
    """Who started the command: the name by which the tracking store knows them, or their login."""
    NOTE = "mlflow.note.content"
    """The run's description, Markdown."""
    COMMAND = "morphmlp.command"
    """The whole command line."""
    KIND = "morphmlp.kind"
    """`sweep` for a sweep's own run, `trial` for one of its points; runs outside of sweeps have none."""
    POINT = "morphmlp.point"
    """Of a trial: the fields that the sweep set and their values, as JSON."""
    ERROR = "morphmlp.error"
    """Why a run or a trial ended early; empty where it was continued, or tried again and finished."""
    TRIAL_STATE = "morphmlp.trial.state"
    """How a trial ended: `finished`, `stopped`, `timed_out`, `diverged`, `failed`."""
    TRIAL_NUMBER = "morphmlp.trial.number"
    """From 1, in the order of the sweep."""
    TRIAL_SEED = "morphmlp.trial.seed"
    """The trial's seed."""
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
    EARLIER_EVENTS = "morphmlp.earlier_events"
    """The events before that one, newest first, a line each; not all of many."""
    BEGUN = "morphmlp.begun"
    """When the command at work took the run up: UTC, ISO 8601."""
    RAY_JOB = "morphmlp.ray_job"
    """Ray's names for that command and its node, `JOB NODE`; none outside of a cluster."""
    INGEST_CPUS = "morphmlp.ingest_cpus"
    """CPUs that decode tasks may use, over all workers."""


class Metrics:
    """Names of the metrics: `train/` by step (`train/epoch_loss` by epoch), `epoch/` by epoch, others once.

    `val/` is by epoch, or by step where the training's length is in steps (`train.steps`).

    Those of scores aren't here: `ScoreName.val_metric` and `ScoreName.test_metric` name them.
    """

    TRAIN_LOSS = "train/loss"
    """Mean loss of a clip over the steps since the last point."""
    TRAIN_LR = "train/lr"
    """Learning rate of the last step."""
    TRAIN_GRAD_NORM = "train/grad_norm"
    """Mean norm of the gradient, before it is clipped."""
    TRAIN_STEP_S = "train/step_s"
    """Mean seconds of a step since the last point, waiting for data included."""
    TRAIN_DATA_WAIT_S = "train/data_wait_s"
    """Mean seconds of a step spent waiting for data."""
    TRAIN_COMPUTE_S = "train/compute_s"
    """Mean seconds of a step spent computing."""
    TRAIN_ALL_REDUCE_S = "train/all_reduce_s"
    """Mean seconds of a step spent exchanging gradients and waiting for slower workers."""
    TRAIN_OTHER_S = "train/other_s"
    """Seconds for each step since the last point that were spent outside of steps: validation, snapshots, reports."""
    TRAIN_START_S = "train/start_s"
    """Seconds from workers being ready to their first batch, at each start; no part of any other time or rate."""
    TRAIN_CLIPS_PER_S = "train/clips_per_s"
    """Clips a second over all workers, by the time from report to report."""
    TRAIN_GMACS_PER_S = "train/gmacs_per_s"
    """Billion multiply-accumulates a second over all workers, three forward passes a clip."""
    TRAIN_CPU_S_PER_CLIP = "train/cpu_s_per_clip"
    """CPU core-seconds of decoding, for each clip."""
    TRAIN_SKIPPED_STEPS = "train/skipped_steps"
    """Steps since the last point whose loss or gradient wasn't finite; no point where there are none."""
    TRAIN_WORKERS = "train/workers"
    """Number of workers, at each of their starts."""
    TRAIN_EPOCH_LOSS = "train/epoch_loss"
    """Mean loss of a clip over an epoch."""
    TRAIN_ROUND_LOSS = "train/round_loss"
    """Its place where the length is in steps: over the steps from one validation to the next."""
    TRAIN_CONCEALED = "train/concealed_frames"
    """Frames since the last point that stand in for damaged ones, over all workers; no point where there are none."""
    TRAIN_RETRIED = "train/retried_videos"
    """Videos since the last point that only the second decoder could read; no point where there are none."""
    VAL_LOSS = "val/loss"
    """Mean loss of a validation video."""
    VAL_NUM_VIDEOS = "val/num_videos"
    """Validation videos that were scored."""
    TEST_NUM_VIDEOS = "test/num_videos"
    """Test videos that were scored."""
    TEST_NUM_QUARANTINED = "test/num_quarantined"
    """Test videos that couldn't be decoded."""
    TEST_CONCEALED = "test/concealed_frames"
    """Frames of the test that stand in for damaged ones."""
    TEST_RETRIED = "test/retried_videos"
    """Test videos that only the second decoder could read."""
    EPOCH_CLIPS_PER_S = "epoch/clips_per_s"
    """An epoch's clips a second over all workers, without the time of starting."""
    EPOCH_GMACS_PER_S = "epoch/gmacs_per_s"
    """An epoch's billion multiply-accumulates a second over all workers."""
    EPOCH_STALL_SHARE = "epoch/stall_share"
    """Share of an epoch's worker time spent waiting for data, 0 to 1."""
    EPOCH_CPU_S_PER_CLIP = "epoch/cpu_s_per_clip"
    """An epoch's CPU core-seconds of decoding, for each clip."""
    EPOCH_WORKER_HOURS = "epoch/worker_hours"
    """Hours of one training worker that an epoch took, repeated steps included."""
    RUN_WALL_S = "run/wall_s"
    """Seconds of the command that finished the run, from its start to its end."""
    RUN_WORKER_HOURS = "run/worker_hours"
    """Hours of one training worker, repeated steps included."""
    RUN_GPU_HOURS = "run/gpu_hours"
    """Hours of one GPU, repeated steps included; 0 where workers have none."""
    RUN_DECODE_CORE_HOURS = "run/decode_core_hours"
    """Hours of one CPU core that decoding used."""
    RUN_COST = "run/cost"
    """Cost of what has a price (`cluster.gpu_hour_price`, `cluster.cpu_hour_price`); no point where nothing has one."""
    RUN_STALL_SHARE = "run/stall_share"
    """Share of the workers' time spent waiting for data, 0 to 1."""
    RUN_ALL_REDUCE_SHARE = "run/all_reduce_share"
    """Share of the workers' time spent exchanging gradients and waiting for slower workers, 0 to 1."""
    RUN_CLIPS_PER_S = "run/clips_per_s"
    """Clips a second over all workers and the whole training, without the time of starting."""
    RUN_GMACS_PER_S = "run/gmacs_per_s"
    """Billion multiply-accumulates a second over all workers and the whole training."""
    RUN_CPU_S = "run/cpu_s"
    """CPU core-seconds of all processes of the run: workers, decode tasks, scorers and the driver's share."""
    RUN_CPU_S_PER_CLIP = "run/cpu_s_per_clip"
    """CPU core-seconds of decoding, for each training clip."""
    RUN_EVENTS = "run/events"
    """Restarts, resizes and the like so far; the step is the event's number."""
    NETWORK_GMACS = "network/gmacs"
    """Billion multiply-accumulates of one view."""
    NETWORK_PARAMS_M = "network/params_m"
    """Million parameters of the network."""
    TRIAL_GMACS = "trial/gmacs"
    """Of a sweep's trial: billion multiply-accumulates of one view."""
    TRIAL_PARAMS = "trial/params"
    """Of a sweep's trial: parameters of the network."""
    TRIAL_EPOCHS = "trial/epochs"
    """Of a sweep's trial: epochs trained and validated."""
    TRIAL_STEPS = "trial/steps"
    """Its place where the length is in steps: steps up to the last validation."""
    SYSTEM = "system/"
    """Prefix of a machine's name and MLflow's names of what it does, as in `system/gpu-1/gpu_0_utilization_percentage`;
    the step is seconds since the run began."""


@dataclass(frozen=True, kw_only=True)
class RecordedDataset:
    """A split as the record names it: by it runs on the same videos are found."""

    name: str
    """`<data set>-<split>`."""
    digest: str
    """The fingerprint of its videos."""
    context: str
    """`train`, `val` or `test`."""
    source: str
    """The manifest's path."""
    columns: Mapping[str, str]
    """The manifest's columns with MLflow's names of their types."""
    profile: Mapping[str, int | str]
    """Numbers of videos and classes, and the like."""


@dataclass(frozen=True)
class MetricPoint:
    """One value of one metric."""

    key: str
    value: float
    step: int
    """Optimiser step or epoch, whichever the metric goes by."""
    timestamp_ms: int
    """Milliseconds since 1970."""

    @classmethod
    def now(cls, key: str, value: float, step: int = 0) -> Self:
        """A value that was found just now."""
        return cls(key, value, step, int(time.time() * 1000))


def is_same(value: float, other: float | None) -> bool:
    """Whether two values are equal to the last bit, or both NaN."""
    return value == other or (other is not None and math.isnan(value) and math.isnan(other))


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run as the store knows it."""

    run_id: str
    run_name: str
    experiment: str
    status: str
    start_ms: int
    end_ms: int | None
    """None while it runs."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """The latest values."""
    latest: Mapping[str, MetricPoint]
    """The same with steps and times."""
