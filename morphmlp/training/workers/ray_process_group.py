"""The process group of workers on several nodes: over the network that Ray itself uses between them.

gloo takes the interface of the host's own name, which is a loopback address on many systems (127.0.1.1 on Debian and
Ubuntu): no other node reaches it there.
"""

import fcntl
import os
import socket
import struct

import ray
import ray.util
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig

INTERFACE_FIELDS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Where torch looks for an interface's name."""
_ADDRESS_OF = 0x8915
"""Linux's SIOCGIFADDR."""


class ProcessGroupConfig(TorchConfig):
    """Ray's own, with the interface chosen before the group forms."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls around the workers' life."""
        return _ChosenInterface


class _ChosenInterface(Backend):
    share_cuda_visible_devices = TorchConfig().backend_cls.share_cuda_visible_devices

    def __init__(self) -> None:
        self._torch: Backend = TorchConfig().backend_cls()

    def on_start(self, worker_group, backend_config: BackendConfig) -> None:  # type: ignore[no-untyped-def]  # Ray's type is internal
        if len(set(worker_group.execute(_node_id))) > 1:  # one machine connects to itself in any case
            worker_group.execute(choose_interface)
        self._torch.on_start(worker_group, backend_config)

    def on_training_start(self, worker_group, backend_config: BackendConfig) -> None:  # type: ignore[no-untyped-def]
        self._torch.on_training_start(worker_group, backend_config)

    def on_shutdown(self, worker_group, backend_config: BackendConfig) -> None:  # type: ignore[no-untyped-def]
        self._torch.on_shutdown(worker_group, backend_config)


def choose_interface() -> None:
    """Name the interface of this node's address for torch, unless the user has named one."""
    name = interface_of(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if name is not None:
        for field in INTERFACE_FIELDS:
            os.environ.setdefault(field, name)


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
