"""torch's store serves on one address, and the kernel lets nobody but the workers' addresses through."""

import socket

import pytest
from torch.distributed import TCPStore

from morphmlp.drill.services import free_port
from morphmlp.training.workers import store_listener
from morphmlp.training.workers.store_listener import knock, listen, open_store, serve

SECRET = "0123456789abcdef" * 4


def connects(source: str, address: str, port: int) -> bool:
    """Whether a program at the address `source` gets through to a port."""
    with socket.socket() as client:
        client.settimeout(0.5)
        client.bind((source, 0))
        return client.connect_ex((address, port)) == 0


def knock_from(source: str, port: int, secret: str) -> None:
    with socket.create_connection(("127.0.0.1", port), source_address=(source, 0)) as connection:
        connection.sendall(secret.encode())


def test_strangers_get_through_to_torchs_own_store_and_not_to_this_one():
    own = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert connects("127.0.0.2", "127.0.0.3", own.port)  # on all addresses, from all
    port = listen("127.0.0.1")
    assert not connects("127.0.0.2", "127.0.0.3", port)
    assert connects("127.0.0.2", "127.0.0.1", port)
    knock("127.0.0.1", port, SECRET)
    knock_from("127.0.0.4", port, SECRET)
    assert serve("127.0.0.1", port, SECRET, workers=2) == ["127.0.0.1", "127.0.0.4"]
    assert not connects("127.0.0.2", "127.0.0.1", port)
    assert connects("127.0.0.4", "127.0.0.1", port)


def test_who_shows_no_secret_is_not_admitted_and_loses_the_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_listener, "_READ_S", 0.1)
    port = listen("127.0.0.1")
    silent = [socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) for _ in range(2)]
    knock_from("127.0.0.2", port, "f" * 64)
    knock_from("127.0.0.2", port, "short")
    knock("127.0.0.1", port, SECRET)
    late = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))
    assert serve("127.0.0.1", port, SECRET, workers=1) == ["127.0.0.1"]
    for connection in (*silent, late):
        connection.settimeout(5)
        assert connection.recv(1) == b""
        connection.close()


def test_a_group_uses_the_store_that_serves_already():
    port = listen("127.0.0.1")
    open_store("127.0.0.1", port)
    stores = [
        TCPStore("127.0.0.1", port, 2, is_master=first, multi_tenant=True, wait_for_workers=False)
        for first in (True, False)
    ]
    stores[0].set("key", "value")
    assert stores[1].get("key") == b"value"


def test_workers_that_are_not_heard_or_find_nobody_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_listener, "KNOCK_S", 0.2)
    port = listen("127.0.0.1")
    knock("127.0.0.1", port, SECRET)
    with pytest.raises(ConnectionError, match=f"1 of 2 training workers weren't heard at 127.0.0.1:{port}"):
        serve("127.0.0.1", port, SECRET, workers=2)
    with pytest.raises(
        ConnectionError, match=r"can't reach 127.0.0.1:\d+, .*: .*refused; open all ports between the nodes"
    ):
        knock("127.0.0.1", free_port(), SECRET)
