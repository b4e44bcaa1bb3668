"""The process group of workers: over the network that Ray itself uses between them, closed to everybody else.

gloo takes the interface of the host's own name, which is a loopback address on many systems (127.0.1.1 on Debian and
Ubuntu): no other node reaches it there. torch's store takes and gives keys to whoever connects (`store_listener.py`).
Workers on one machine meet on its loopback.
"""

import fcntl
import os
import secrets
import socket
import struct
from typing import Any

import ray
import ray.util
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig

from morphmlp.training.workers.store_listener import knock, listen, serve

INTERFACE_FIELDS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Where torch looks for an interface's name."""
_LOOPBACK = "127.0.0.1"
_ADDRESS_OF = 0x8915
"""Linux's SIOCGIFADDR."""
RAYS_CHOICE = "get_address_and_port"
"""The function that Ray has the first worker call for the store's address and port."""


class ProcessGroupConfig(TorchConfig):
    """Ray's own, with the interface and the store's address chosen before the group forms."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls around the workers' life."""
        return _ClosedGroup


class _ClosedGroup(Backend):
    share_cuda_visible_devices = TorchConfig().backend_cls.share_cuda_visible_devices

    def __init__(self) -> None:
        self._torch: Backend = TorchConfig().backend_cls()

    def on_start(self, worker_group, backend_config: BackendConfig) -> None:  # type: ignore[no-untyped-def]  # Ray's type is internal
        alone = len(set(worker_group.execute(_node_id))) == 1
        worker_group.execute(choose_interface, alone=alone)
        address = worker_group.execute_single(0, meeting_address, alone=alone)
        port = worker_group.execute_single(0, listen, address)
        secret = secrets.token_hex(32)
        worker_group.execute(knock, address, port, secret)
        worker_group.execute_single(0, serve, address, port, secret, workers=len(worker_group))
        group: Any = _MeetingAt(worker_group, (address, port))
        self._torch.on_start(group, backend_config)

    def on_training_start(self, worker_group, backend_config: BackendConfig) -> None:  # type: ignore[no-untyped-def]
        self._torch.on_training_start(worker_group, backend_config)

    def on_shutdown(self, worker_group, backend_config: BackendConfig) -> None:  # type: ignore[no-untyped-def]
        self._torch.on_shutdown(worker_group, backend_config)


class _MeetingAt:
    """Ray's group of workers, but for where they meet."""

    def __init__(self, workers: Any, at: tuple[str, int]) -> None:
        self._workers, self._at = workers, at

    def execute_single(self, index: int, function: Any, *arguments: Any, **options: Any) -> Any:
        if function.__name__ == RAYS_CHOICE:
            return self._at
        return self._workers.execute_single(index, function, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workers, name)

    def __len__(self) -> int:
        return len(self._workers)


def choose_interface(*, alone: bool) -> None:
    """Name the interface of this node's address for torch, unless the user has named one; `alone`: of loopback."""
    name = interface_of(meeting_address(alone=alone))
    if name is not None:
        for field in INTERFACE_FIELDS[:1] if alone else INTERFACE_FIELDS:  # NCCL finds its own way inside a machine
            os.environ.setdefault(field, name)


def meeting_address(*, alone: bool) -> str:
    """Where others meet this process: Ray's address of the node, or its loopback where they're all here."""
    return _LOOPBACK if alone else str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has an IPv4 address; None where none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asked, _ADDRESS_OF, struct.pack("256s", name.encode()))
            except OSError:
                continue  # it has no such address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())
