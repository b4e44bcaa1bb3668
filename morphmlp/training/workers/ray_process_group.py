"""The process group of workers: over the network that Ray itself uses between them, closed to everybody else.

gloo takes the interface of the host's own name, which is a loopback address on many systems (127.0.1.1 on Debian and
Ubuntu): no other node reaches it there. torch's store takes and gives keys to whoever connects (`store_listener.py`).
Workers on one machine meet on its loopback.

Ray's own (`ray.train.torch.TorchConfig`) makes Ray Train's controller import torch before it asks for the workers. Here
only they do.
"""

import fcntl
import logging
import os
import secrets
import socket
import struct
from dataclasses import dataclass
from datetime import timedelta

import ray
import ray.util
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

from morphmlp.training.workers.ray_job import import_worker
from morphmlp.training.workers.store_listener import knock, listen, serve

INTERFACE_FIELDS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Where torch looks for an interface's name."""
_LOOPBACK = "127.0.0.1"
_ADDRESS_OF = 0x8915
"""Linux's SIOCGIFADDR."""
_LEAVE_S = 30.0
"""Time for the workers to leave the group, as Ray gives them."""


@dataclass
class ProcessGroupConfig(BackendConfig):
    """What Ray Train is told of the group."""

    backend: str
    """`gloo` or `nccl`."""
    timeout_s: float
    """After so long a worker that waits for another one gives up."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls around the workers' life."""
        return _ClosedGroup


class _ClosedGroup(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group, backend_config: ProcessGroupConfig) -> None:  # type: ignore[no-untyped-def,override]  # Ray's type is internal
        workers = len(worker_group)
        worker_group.execute(import_worker)  # at the same time; they would come to it one after the other
        alone = len(set(worker_group.execute(_node_id))) == 1
        worker_group.execute(choose_interface, alone=alone)
        address = worker_group.execute_single(0, meeting_address, alone=alone)
        port = worker_group.execute_single(0, listen, address)
        secret = secrets.token_hex(32)
        worker_group.execute(knock, address, port, secret)
        worker_group.execute_single(0, serve, address, port, secret, workers=workers)
        joining = [
            worker_group.execute_single_async(rank, join, backend_config, rank, workers, address=address, port=port)
            for rank in range(workers)
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group, backend_config: BackendConfig) -> None:  # type: ignore[no-untyped-def]  # as above
        if len(worker_group) == 1:
            return
        try:
            ray.get(worker_group.execute_async(_leave), timeout=_LEAVE_S)
        except GetTimeoutError:
            logging.getLogger(__name__).warning("workers haven't left their process group within %.0f s", _LEAVE_S)


def join(config: ProcessGroupConfig, rank: int, workers: int, *, address: str, port: int) -> None:
    """Join the group that meets at an address, as the worker of this rank; returns when all are there."""
    import torch.distributed as dist  # noqa: PLC0415 (seconds, which Ray Train's controller must not take)

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(workers)}
    if "TORCH_NCCL_BLOCKING_WAIT" not in os.environ:
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # a collective that fails ends its process
    timeout = timedelta(seconds=config.timeout_s)
    dist.init_process_group(config.backend, rank=rank, world_size=workers, timeout=timeout)


def _leave() -> None:
    import torch.distributed as dist  # noqa: PLC0415 (as above)

    if dist.is_initialized():
        dist.destroy_process_group()


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
