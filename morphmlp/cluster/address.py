"""Whether a Ray cluster answers at an address, found out within seconds; Ray itself would wait for minutes."""

import ipaddress
import os
import re
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from morphmlp.cluster.token import known_token, shows_token
from morphmlp.errors import ClusterError

if TYPE_CHECKING:
    import grpc

VARIABLE = "RAY_ADDRESS"
"""Where Ray itself looks for a cluster."""
TIMEOUT_S = 5.0
"""Time for a connection, and again for an answer."""
OPEN_ALLOWED = "MORPHMLP_ALLOW_OPEN_CLUSTER"
"""Set to 1 by who knows that a cluster requires no token, and keeps everybody else away from its nodes."""
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
_QUESTION = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""What every client asks the head first; a head that requires a token refuses it without one."""


def require_named_cluster() -> None:
    """As `require_cluster` for the cluster of RAY_ADDRESS, where one is named; for a command's beginning."""
    if address := os.environ.get("RAY_ADDRESS"):
        require_cluster(address)


def require_no_cluster() -> None:
    """For measurements that start Ray on this machine and read its processes.

    Raises:
        ClusterError: RAY_ADDRESS names a cluster.
    """
    if os.environ.get("RAY_ADDRESS"):
        raise ClusterError("RAY_ADDRESS is set; unset it: this measurement starts Ray here, and reads its CPU times")


def require_cluster(address: str, *, named: str = VARIABLE) -> None:
    """Make sure that a cluster answers, and that it takes this process.

    The address is the head's `host:port`, or `auto` for the Ray that runs on this machine; `named` is the variable or
    option that the user gave it by.

    Raises:
        ClusterError: It's no such address, nothing answers there, something else does, or a token is lacking.
    """
    if address == "auto":
        recorded = _recorded()
        if recorded is None or _any_head_here():
            return  # Ray looks through this machine's processes, and says at once when there is none
        try:
            _require_answer(recorded, named)
        except ClusterError as error:
            raise ClusterError(
                f"{named} auto: no Ray runs on this machine; the last one was at {recorded}; name the head as "
                f"host:port{_alone(named)}"
            ) from error
        return
    _require_form(address, named)
    _require_answer(address, named)


def head_address(address: str, *, named: str = VARIABLE) -> str:
    """The head's `host:port` for an address that `require_cluster` has taken.

    Raises:
        ClusterError: `auto`, and no Ray of this machine has left its address.
    """
    if address != "auto":
        return address
    if (recorded := _recorded()) is None:
        raise ClusterError(f"{named} auto: no Ray runs on this machine; name the head as host:port")
    return recorded


def require_closed(head: str, nodes: Iterable[str]) -> None:
    """Refuse a cluster that takes orders from whoever reaches it: without a token, on other addresses than loopback.

    `head` is the address of Ray's head, `nodes` are those of all nodes. TLS closes nothing by itself: Ray's agents on
    the nodes take jobs over plain HTTP.

    Raises:
        ClusterError: It is one, and nobody has allowed it (`OPEN_ALLOWED`).
    """
    reachable = [node for node in nodes if not _is_loopback(node)]
    if not reachable or os.environ.get(OPEN_ALLOWED) == "1" or not _takes_anyone(head):
        return
    where = (
        f"node {reachable[0]}" if len(reachable) == 1 else f"one of its {len(reachable)} nodes ({reachable[0]}, ...)"
    )
    raise ClusterError(
        f"RAY_ADDRESS {head}: the cluster requires no token: whoever reaches {where} over the network can run any "
        "command there as Ray's user, and read and change data and checkpoints; start Ray with a token on every node "
        f"(RAY_AUTH_MODE=token, docs/cluster.md), or export {OPEN_ALLOWED}=1 where nobody else reaches them"
    )


def _takes_anyone(head: str) -> bool:
    import grpc  # noqa: PLC0415 (only where a cluster is joined)

    if _has_tls():  # nobody can be asked without its certificates
        return not shows_token()
    return _asked(head, token=None) is grpc.StatusCode.OK


def _has_tls() -> bool:
    return os.environ.get("RAY_USE_TLS") in ("1", "true")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _require_form(address: str, named: str) -> None:
    if address.startswith("ray://"):
        raise ClusterError(
            f"{named} {address}: Ray's client isn't supported; run the command on a machine of the cluster with "
            "the head's host:port (port 6379 by default), or through `ray job submit`"
        )
    if address == "local":
        raise ClusterError(
            "RAY_ADDRESS local: unset it, Ray is then started on this machine"
            if named == VARIABLE
            else f"{named} local: names no cluster that runs; name the head as host:port"
        )
    form = _HOST_AND_PORT.fullmatch(address)
    if form is None or not 0 < int(form["port"]) < 2**16:
        raise ClusterError(
            f"{named} {address!r}: is no address; name the head as host:port, as in 10.0.0.1:6379, or auto for the "
            "Ray that runs on this machine"
        )


def _require_answer(address: str, named: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S).close()
    except TimeoutError:
        raise _silent(address, named, f"no answer within {TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise _silent(address, named, error.strerror or str(error)) from None
    if not _has_tls():  # whose certificates Ray itself looks after
        _require_head(address, named)


def _require_head(address: str, named: str) -> None:
    import grpc  # noqa: PLC0415 (only where a cluster is joined)

    token = known_token()
    answer = _asked(address, token=None)
    if answer is grpc.StatusCode.UNAUTHENTICATED:
        if not shows_token():
            raise ClusterError(
                f"{named} {address}: the cluster requires a token: export RAY_AUTH_MODE=token"
                + ("" if token else ", and bring the head's ~/.ray/auth_token to this machine")
            )
        if not token:
            raise ClusterError(
                f"{named} {address}: the cluster requires a token, and there is none here: bring the head's "
                "~/.ray/auth_token to this machine"
            )
        if _asked(address, token=token) is grpc.StatusCode.UNAUTHENTICATED:
            raise ClusterError(
                f"{named} {address}: the cluster refuses this machine's token; bring the head's ~/.ray/auth_token "
                "to this machine"
            )
    elif answer is not grpc.StatusCode.OK:
        raise _silent(address, named, f"something listens there that isn't Ray's head ({answer.name.lower()})")


def _asked(address: str, *, token: str | None) -> "grpc.StatusCode":
    import grpc  # noqa: PLC0415 (only where a cluster is joined)

    # Without a proxy: Ray's own connections take none.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_QUESTION)(
                b"", timeout=TIMEOUT_S, metadata=None if token is None else [("authorization", f"Bearer {token}")]
            )
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _silent(address: str, named: str, reason: str) -> ClusterError:
    also = _alone(named)
    return ClusterError(
        f"{named} {address}: no cluster answers: {reason}; start it{',' if also else ', or'} fix the address{also}"
    )


def _alone(named: str) -> str:
    """What else a user may do who needs no cluster."""
    return ", or unset RAY_ADDRESS to train on this machine alone" if named == VARIABLE else ""


def _recorded() -> str | None:
    """The address of the Ray that was last started on this machine, as Ray keeps it."""
    return _text_in(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster")


def _text_in(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _any_head_here() -> bool:
    # A process without a text has just ended.
    return any((_text_in(name) or "").startswith("gcs_server") for name in Path("/proc").glob("[0-9]*/comm"))
