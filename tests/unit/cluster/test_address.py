"""An address that can't be joined is refused within seconds, with its reason."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from morphmlp.cluster import address as cluster_address
from morphmlp.cluster.address import OPEN_ALLOWED, require_closed, require_cluster
from morphmlp.errors import ClusterError


class Head(grpc.GenericRpcHandler):
    """Answers as Ray's head does, to those who show its token."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if handler_call_details.method != "/ray.rpc.NodeInfoGcsService/GetClusterId":
            return None
        shown = dict(handler_call_details.invocation_metadata).get("authorization")

        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            if self._token is not None and shown != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


def head(token: str | None) -> Iterator[str]:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[Head(token)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def open_head() -> Iterator[str]:
    yield from head(None)


@pytest.fixture
def guarded_head() -> Iterator[str]:
    yield from head("right")


@pytest.fixture
def heads(open_head: str, guarded_head: str) -> dict[str, str]:
    return {"open": open_head, "guarded": guarded_head}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS", OPEN_ALLOWED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("garbage", "is no address; name the head as host:port"),
        ("10.0.0.1", "is no address; name the head as host:port"),
        ("localhost:99999", "is no address; name the head as host:port"),
        ("local", "unset it, Ray is then started on this machine"),
        ("ray://10.0.0.1:10001", "run the command on a machine of the cluster"),
        ("no-such-host.invalid:6379", "no cluster answers: .*; start it, fix the address, or unset RAY_ADDRESS"),
    ],
)
def test_what_is_no_address_is_refused_with_what_would_be(address: str, message: str):
    with pytest.raises(ClusterError, match=message):
        require_cluster(address)


def test_an_address_where_nothing_listens_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"RAY_ADDRESS {address}: no cluster answers: Connection refused"):
        require_cluster(address)


def test_what_listens_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster_address, "TIMEOUT_S", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ClusterError, match="something listens there that isn't Ray's head"),
    ):
        require_cluster(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_head_without_a_token_takes_anyone(open_head: str, monkeypatch: pytest.MonkeyPatch):
    require_cluster(open_head)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    require_cluster(open_head)


@pytest.mark.parametrize(
    ("mode", "token", "message"),
    [
        (None, None, r"requires a token: export RAY_AUTH_MODE=token, and bring the head's ~/.ray/auth_token"),
        (None, "right", "requires a token: export RAY_AUTH_MODE=token$"),
        ("token", None, "requires a token, and there is none here: bring the head's"),
        ("token", "wrong", "the cluster refuses this machine's token"),
    ],
)
def test_a_head_with_a_token_says_what_is_lacking(
    guarded_head: str, mode: str | None, token: str | None, message: str, monkeypatch: pytest.MonkeyPatch
):
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if token is not None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(ClusterError, match=message):
        require_cluster(guarded_head)


def test_a_head_takes_the_token_of_the_home_folder(guarded_head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("right\n", encoding="utf-8")
    require_cluster(guarded_head)


def test_auto_names_the_head_that_was_there_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster_address, "_any_head_here", lambda: False)
    require_cluster("auto")  # Ray itself says at once that there is none
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1", encoding="utf-8")
    with pytest.raises(ClusterError, match=r"no Ray runs on this machine; the last one was at 127\.0\.0\.1:1"):
        require_cluster("auto")


ALONE, ONE, TWO = ["127.0.0.1"], ["10.0.0.5"], ["10.0.0.5", "10.0.0.6"]


@pytest.mark.parametrize("mode", ["", "token", "disabled"])
@pytest.mark.parametrize(
    ("nodes", "where"),
    [
        (ALONE, None),
        (["::1"], None),
        (["localhost"], None),
        (ONE, "node 10.0.0.5"),
        (["fd00::2"], "node fd00::2"),
        (["head.cluster"], "node head.cluster"),
        (TWO, r"one of its 2 nodes \(10.0.0.5, ...\)"),
        (ALONE + ONE, "node 10.0.0.5"),
    ],
)
def test_an_open_cluster_is_refused_whatever_is_shown_here(
    nodes: list[str], where: str | None, mode: str, heads: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    require_closed(heads["guarded"], nodes)
    if where is None:
        require_closed(heads["open"], nodes)
        return
    with pytest.raises(ClusterError, match=f"^RAY_ADDRESS {heads['open']}: .* no token: whoever reaches {where} over "):
        require_closed(heads["open"], nodes)
    monkeypatch.setenv(OPEN_ALLOWED, "1")
    require_closed(heads["open"], nodes)


def test_tls_without_a_token_leaves_a_cluster_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with pytest.raises(ClusterError, match="requires no token"):
        require_closed("10.0.0.5:6379", TWO)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    require_closed("10.0.0.5:6379", TWO)
