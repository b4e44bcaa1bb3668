"""The stops by name, apart from their code: help and a wrong name are told before torch and Ray are imported."""

STOP_NAMES = (
    *("worker-killed", "node-lost", "driver-killed", "ctrl-c", "sigterm"),
    *("full-disk", "torn-checkpoint", "mlflow-down", "slow-storage", "upload-killed", "elastic"),
)
"""In the order of the table; `trials.STOPS` has each one's code."""
