"""What a session on Ray couldn't get over, as one line instead of Ray's many."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError, RayTaskError

from morphmlp.cluster.failure_reasons import failure_reason, root_failure, users_fault
from morphmlp.errors import ClusterError


@contextmanager
def faults_told() -> Iterator[None]:
    """Tell by its cause what Ray couldn't get over: lost processes and nodes, memory or disks that ran out.

    Raises:
        ClusterError: That.
        MorphMLPError: The project's own error, out of a task of Ray's.
    """
    try:
        yield
    except RayError as error:
        root = root_failure(error)
        if (fault := users_fault(root)) is not None:
            raise fault from error
        if not isinstance(root, RayError) or isinstance(root, RayTaskError):
            raise  # a defect in a task, with its traceback
        raise ClusterError(f"Ray gave up: {failure_reason(root)}; the same command continues") from error
