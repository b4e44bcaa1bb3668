"""Where torch's store listens: on one address, and for the nodes of the group alone.

torch's own listens on all addresses, and takes and gives keys to whoever connects. Here it gets a socket on the address
of the node of rank 0. Every worker knocks there with a secret that came to it through Ray, which asks for the cluster's
token; then the kernel drops what comes from other addresses than theirs. Other processes on those nodes still get in.
"""

import hmac
import ipaddress
import socket
import struct
import time
from collections.abc import Iterable
from ctypes import addressof, create_string_buffer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public; torch's hints leave it out


KNOCK_S = 60.0
"""Time for all workers to be heard."""
_READ_S = 1.0
_BACKLOG = 4096
"""Workers that may wait to be heard; Linux's default limit."""
_ATTACH_FILTER = 26
"""Linux's SO_ATTACH_FILTER, which Python doesn't name."""
_SOURCE = 0xFFF00000 + 12
"""Classic BPF: the source address, 12 bytes into the IPv4 header (SKF_NET_OFF)."""

_listening: dict[int, socket.socket] = {}
_stores: list["TCPStore"] = []  # torch finds them by their ports for as long as they are kept


def listen(address: str) -> int:
    """Listen on a free port of one of this machine's addresses; returns the port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, 0), family=family, backlog=_BACKLOG)
    port = int(listening.getsockname()[1])
    _listening[port] = listening
    return port


def knock(address: str, port: int, secret: str) -> None:
    """Show the secret there, so that this process's address is admitted.

    Raises:
        ConnectionError: It can't be reached.
    """
    try:
        with socket.create_connection((address, port), timeout=KNOCK_S) as connection:
            connection.sendall(secret.encode())
    except OSError as error:
        raise ConnectionError(
            f"{socket.gethostname()} can't reach {address}:{port}, where training workers meet: {error}; open all "
            "ports between the nodes"
        ) from error


def serve(address: str, port: int, secret: str, *, workers: int) -> list[str]:
    """Hear every worker's knock, admit their addresses and no others, and let torch's store serve there.

    Returns the addresses.

    Raises:
        ConnectionError: Not all have been heard in time.
    """
    with _listening.pop(port) as listening:  # the store's from then on
        admitted = set()
        deadline = time.monotonic() + KNOCK_S
        for missing in range(workers, 0, -1):
            while (peer := _heard(listening, secret, deadline)) is None:
                if time.monotonic() >= deadline:
                    raise ConnectionError(f"{missing} of {workers} training workers weren't heard at {address}:{port}")
            admitted.add(peer)
        admit(listening, admitted)
        _turn_away_who_waits(listening)
        _listening[port] = listening
        open_store(address, port)
    return sorted(admitted)


def open_store(address: str, port: int) -> None:
    """Let torch's store serve where `listen` listens; a group that meets there on this process finds it by its port."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: PLC0415 (who only asks needs no torch)

    listening = _listening.pop(port)
    listening.settimeout(None)
    store = TCPStore(
        address, port, is_master=True, wait_for_workers=False, multi_tenant=True, master_listen_fd=listening.detach()
    )
    _stores.append(store)


def admit(listening: socket.socket, addresses: Iterable[str]) -> None:
    """Let the kernel drop what comes to a listening socket from other IPv4 addresses; Linux, no rights needed."""
    if listening.family != socket.AF_INET:
        return
    program = [(0x20, 0, 0, _SOURCE)]  # load it
    for address in addresses:
        program += [(0x15, 0, 1, int(ipaddress.IPv4Address(address))), (0x06, 0, 0, 0xFFFFFFFF)]  # if it's equal: take
    program.append((0x06, 0, 0, 0))  # drop
    code = create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", len(program), addressof(code)))


def _heard(listening: socket.socket, secret: str, deadline: float) -> str | None:
    """The address of who knocks next; None: nobody did, or without the secret."""
    listening.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        connection, peer = listening.accept()
        with connection:
            connection.settimeout(_READ_S)
            shown = b""
            while len(shown) < len(secret) and (part := connection.recv(len(secret) - len(shown))):
                shown += part
    except OSError:
        return None
    return str(peer[0]) if hmac.compare_digest(shown, secret.encode()) else None


def _turn_away_who_waits(listening: socket.socket) -> None:
    """End connections that were made before only the admitted could."""
    listening.settimeout(0)
    try:
        while True:
            listening.accept()[0].close()
    except BlockingIOError:
        pass
