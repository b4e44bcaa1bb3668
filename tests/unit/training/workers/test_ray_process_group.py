"""Workers on several nodes connect over the interface of Ray's own address."""

import os
import socket

import pytest
from ray.train._internal.utils import get_address_and_port
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

    def execute(self, function, *arguments, **options):
        if function is choose_interface:
            return self.alone.append(options["alone"])
        if function is knock:
            return [knock(*arguments) for _ in self.nodes]
        return self.nodes

    def execute_single(self, index, function, *arguments, **options):
        assert index == 0
        return function(*arguments, **options)

    def __len__(self) -> int:
        return len(self.nodes)


@pytest.mark.parametrize(
    ("nodes", "alone"), [("aba", False), ("aa", True), ("a", True)], ids=["two nodes", "one node", "one worker"]
)
def test_before_the_group_forms_its_store_serves_where_all_workers_have_knocked(
    nodes: str, alone: bool, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    monkeypatch.setattr(ray_process_group.ray.util, "get_node_ip_address", lambda: "127.0.0.7")
    monkeypatch.setattr(TorchConfig().backend_cls, "on_start", lambda _, group, config: seen.append(group))
    workers = Workers(*nodes)
    ProcessGroupConfig(backend="gloo").backend_cls().on_start(workers, ProcessGroupConfig(backend="gloo"))
    assert workers.alone == [alone]
    (group,) = seen
    assert len(group) == len(nodes)
    host, port = group.execute_single(0, get_address_and_port)
    assert host == ("127.0.0.1" if alone else "127.0.0.7")
    store = TCPStore(host, port, wait_for_workers=False)
    store.set("key", "value")
    assert store.get("key") == b"value"


def test_ray_takes_the_stores_address_from_there():
    class Environment(Exception):  # noqa: N818 (no error)
        pass

    class Asked(Workers):
        def execute(self, function, *arguments, **options):
            raise Environment(options)

    group = ray_process_group._MeetingAt(Asked("a", "b"), ("127.0.0.7", 1234))
    with pytest.raises(Environment, match=r"\{'addr': '127.0.0.7', 'port': 1234\}"):
        TorchConfig().backend_cls().on_start(group, TorchConfig(backend="gloo"))


def test_all_else_is_as_in_rays_own():
    ours, rays = ProcessGroupConfig(backend="nccl").backend_cls, TorchConfig(backend="nccl").backend_cls
    fields = [name for name, value in vars(rays.__base__).items() if isinstance(value, bool)]
    assert fields
    assert [getattr(ours, name) for name in fields] == [getattr(rays, name) for name in fields]
    overridden = {name for name, value in vars(rays).items() if callable(value) and hasattr(rays.__base__, name)}
    assert overridden <= set(vars(ours))


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
