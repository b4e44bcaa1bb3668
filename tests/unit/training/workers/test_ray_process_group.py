"""Workers on several nodes connect over the interface of Ray's own address."""

import os
import socket

import pytest
from ray.train.torch import TorchConfig

from morphmlp.training.workers import ray_process_group
from morphmlp.training.workers.ray_process_group import (
    INTERFACE_FIELDS,
    ProcessGroupConfig,
    choose_interface,
    interface_of,
)


@pytest.fixture(autouse=True)
def no_interface_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in INTERFACE_FIELDS:
        monkeypatch.setenv(field, "")  # so that what is set here is undone
        monkeypatch.delenv(field)


class Workers:
    """As Ray Train's group of workers, in this process; each on a node."""

    def __init__(self, *nodes: str) -> None:
        self.nodes = nodes
        self.chose = 0

    def execute(self, function, *arguments, **options):
        if function is choose_interface:
            self.chose += 1
        return self.nodes


def started(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often an interface was chosen before torch's own start."""
    seen = []
    backend = ProcessGroupConfig(backend="gloo").backend_cls()
    monkeypatch.setattr(TorchConfig().backend_cls, "on_start", lambda *_: seen.append(workers.chose))
    backend.on_start(workers, ProcessGroupConfig(backend="gloo"))
    (chosen_before,) = seen
    return chosen_before


def test_an_interface_is_chosen_before_the_group_forms_over_nodes_and_only_there(monkeypatch: pytest.MonkeyPatch):
    assert started(Workers("a", "b", "a"), monkeypatch) == 1
    assert started(Workers("a", "a"), monkeypatch) == 0
    assert started(Workers("a"), monkeypatch) == 0


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


def test_what_the_user_has_named_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_process_group.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    choose_interface()
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("lo", "ib0")
