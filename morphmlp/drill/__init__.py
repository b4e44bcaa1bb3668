"""The drill: the demo is stopped in every way that a run can be stopped, and must end as if nothing had happened.

`trials.run_drill` does it. The names are here, without the code, so that help comes before torch and Ray are imported.
"""

from morphmlp.errors import MorphMLPError

STOP_NAMES = (
    *("worker-killed", "controller-killed", "node-lost", "driver-killed", "ctrl-c", "sigterm", "sighup", "lost-log"),
    *(
        "full-disk",
        "full-disk-at-end",
        "truncated-checkpoint",
        "mlflow-down",
        "slow-storage",
        "upload-killed",
        "elastic",
        *("helpers-killed", "decoding-killed"),
    ),
)
"""In the order of the table; `trials.STOPS` has each one's code."""


class DrillError(MorphMLPError):
    """A stop that didn't happen, or after which the run didn't resume."""
