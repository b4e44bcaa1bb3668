"""The stops by name, apart from their code: help and a wrong name are told before torch and Ray are imported."""

STOP_NAMES = (
    *("worker-killed", "controller-killed", "node-lost", "driver-killed", "ctrl-c", "sigterm", "sighup", "lost-log"),
    *("full-disk", "full-disk-at-end", "torn-checkpoint", "mlflow-down", "slow-storage", "upload-killed", "elastic"),
)
"""In the order of the table; `trials.STOPS` has each one's code."""
