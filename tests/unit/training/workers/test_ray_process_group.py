"""Workers on several nodes connect over the interface of Ray's own address."""

import inspect
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from ray.train.torch import TorchConfig
from torch.distributed import TCPStore

from morphmlp.training.workers import ray_process_group
from morphmlp.training.workers.ray_process_group import (
    INTERFACE_FIELDS,
    ProcessGroupConfig,
    choose_interface,
    interface_of,
)
from morphmlp.training.workers.store_listener import knock


@pytest.fixture(autouse=True)
def no_interface_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in INTERFACE_FIELDS:
        monkeypatch.setenv(field, "")  # so that what is set here is undone
        monkeypatch.delenv(field)


class Workers:
    """As Ray Train's group of workers, in this process; each on a node."""

    def __init__(self, *nodes: str) -> None:
        self.nodes = nodes
        self.alone: list[bool] = []
        self.joined: list[dict[str, Any]] = []

    def execute(self, function, *arguments, **options):
        if function is choose_interface:
            return self.alone.append(options["alone"])
        if function is knock:
            return [knock(*arguments) for _ in self.nodes]
        return [node if function is ray_process_group._node_id else None for node in self.nodes]

    def execute_single(self, index, function, *arguments, **options):
        assert index == 0
        return function(*arguments, **options)

    def execute_single_async(self, rank, fn, *fn_args, **fn_kwargs):  # as Ray names them
        self.joined.append(inspect.getcallargs(fn, *fn_args, **fn_kwargs))
        return rank

    def __len__(self) -> int:
        return len(self.nodes)


@pytest.fixture
def nothing_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of workers is done at once."""
    monkeypatch.setattr(ray_process_group.ray, "get", list)
    monkeypatch.setattr(ray_process_group.ray.util, "get_node_ip_address", lambda: "127.0.0.7")


@pytest.mark.usefixtures("nothing_awaited")
@pytest.mark.parametrize(
    ("nodes", "alone"), [("aba", False), ("aa", True), ("a", True)], ids=["two nodes", "one node", "one worker"]
)
def test_before_the_group_forms_its_store_serves_where_all_workers_have_knocked(nodes: str, alone: bool):
    workers = Workers(*nodes)
    config = ProcessGroupConfig(backend="gloo", timeout_s=60)
    config.backend_cls().on_start(workers, config)
    assert workers.alone == [alone]
    assert [where["rank"] for where in workers.joined] == list(range(len(nodes)))
    assert {where["workers"] for where in workers.joined} == {len(nodes)}
    ((host, port),) = {(where["address"], where["port"]) for where in workers.joined}
    assert host == ("127.0.0.1" if alone else "127.0.0.7")
    store = TCPStore(host, port, wait_for_workers=False)
    store.set("key", "value")
    assert store.get("key") == b"value"


JOINING = """
import sys
from morphmlp.training.workers.ray_process_group import ProcessGroupConfig, _leave, join
from morphmlp.training.workers.store_listener import listen, open_store
rank, port = int(sys.argv[1]), int(sys.argv[2])
if rank == 0:
    port = listen("127.0.0.1")
    open_store("127.0.0.1", port)
    print(port, flush=True)
join(ProcessGroupConfig(backend="gloo", timeout_s=60), rank=rank, workers=2, address="127.0.0.1", port=port)
import torch, torch.distributed as dist
total = torch.tensor(float(rank + 1))
dist.all_reduce(total)
print(dist.get_rank(), dist.get_world_size(), total.item())
_leave()
print(dist.is_initialized())
"""


@pytest.mark.slow  # torch is imported twice
def test_workers_join_and_leave_a_group():
    def worker(rank: int, port: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", JOINING, str(rank), str(port)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, INTERFACE_FIELDS[0]: "lo"}
        )

    with worker(0, 0) as first:
        assert first.stdout is not None
        with worker(1, int(first.stdout.readline())) as second:
            assert second.stdout is not None
            assert (second.stdout.read(), first.stdout.read()) == ("1 2 3.0\nFalse\n", "0 2 3.0\nFalse\n")


def test_all_else_is_as_in_rays_own():
    ours = ProcessGroupConfig(backend="nccl", timeout_s=60).backend_cls
    rays = TorchConfig(backend="nccl").backend_cls
    fields = [name for name, value in vars(rays.__base__).items() if isinstance(value, bool)]
    assert fields
    assert [getattr(ours, name) for name in fields] == [getattr(rays, name) for name in fields]
    # Ray's other one is for Train's first version.
    overridden = {name for name, value in vars(rays).items() if callable(value) and hasattr(rays.__base__, name)}
    assert overridden - {"on_training_start"} <= set(vars(ours))


def test_an_interface_is_found_by_its_address():
    names = {name for _, name in socket.if_nameindex()}
    assert interface_of("127.0.0.1") == "lo"
    assert "lo" in names
    assert interface_of("192.0.2.254") is None


def test_on_one_machine_gloo_keeps_to_loopback_and_nccl_chooses():
    choose_interface(alone=True)
    assert [os.environ.get(field) for field in INTERFACE_FIELDS] == ["lo", None]


def test_what_the_user_has_named_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_process_group.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    choose_interface(alone=False)
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("lo", "ib0")
