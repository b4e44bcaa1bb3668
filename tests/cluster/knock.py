"""A stranger's program: knocks at doors of a cluster with real clients and without its token.

    python knock.py ADDRESS:PORT...      a JSON object: what each door said

A door says nothing but that (`no connection`), refuses (`refused`), or answers: then what it answered stands there.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
from torch.distributed import TCPStore

WAIT_S = 5.0
_WRONG = (("authorization", "Bearer " + "0" * 64),)
_CALLS = [
    *("NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVKeys", "JobInfoGcsService/GetAllJobInfo"),
    *("NodeManagerService/GetNodeStats", "NodeManagerService/GetResourceLoad", "ObjectManagerService/FreeObjects"),
    *("CoreWorkerService/GetCoreWorkerStats", "CoreWorkerService/NumPendingTasks", "ReporterService/GetTraceback"),
    *("RayletDriver/Init", "RayletDriver/KVList", "LogService/ListLogs"),
]
"""Of Ray's services: none changes anything."""
_HEALTH = "/grpc.health.v1.Health/Check"
_REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
_NO_GRPC = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_JOB = json.dumps({"entrypoint": "touch /tmp/a-stranger-was-here"}).encode()
_REQUESTS = [
    *[("GET", path) for path in ("/", "/metrics", "/api/version", "/api/jobs/", "/api/job_agent/jobs/", "/nodes")],
    *[("POST", path) for path in ("/api/jobs/", "/api/job_agent/jobs/", "/get_or_create_runtime_env")],
]


def knock(door: str) -> str:
    """What a door says."""
    address, _, port = door.rpartition(":")
    try:
        with socket.create_connection((address, int(port)), timeout=WAIT_S) as connection:
            connection.settimeout(1.0)
            if (greeting := _greeting(connection)).startswith(b"SSH-"):
                return "answers: SSH"
    except OSError:
        return "no connection"
    if greeting.startswith(b"HTTP/1."):
        return _answers(dict.fromkeys(filter(None, (_requested(door, method, path) for method, path in _REQUESTS))))
    with grpc.insecure_channel(door, options=[("grpc.enable_http_proxy", 0)]) as channel:
        if _called(channel, _HEALTH, None) not in _NO_GRPC:
            calls = [_HEALTH, *(f"/ray.rpc.{call}" for call in _CALLS)]
            return _answers(
                call.rpartition(".")[2]
                for call in calls
                if any(_called(channel, call, token) not in _REFUSED for token in (None, _WRONG))
            )
    return _answers(["torch's store takes keys"]) if _is_store(address, int(port)) else "connects, and says nothing"


def _is_store(address: str, port: int) -> bool:
    took: list[bool] = []

    def client() -> None:  # which waits for much longer than its timeout where something else listens
        with contextlib.suppress(RuntimeError):
            store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=WAIT_S), wait_for_workers=False)
            store.set("a stranger's", "key")
            took.append(True)

    thread = threading.Thread(target=client, daemon=True)
    thread.start()
    thread.join(2 * WAIT_S)
    return bool(took)


def _greeting(connection: socket.socket) -> bytes:
    """What it says by itself, or to a request of HTTP/1."""
    try:
        connection.settimeout(0.5)
        return connection.recv(16)
    except TimeoutError:
        connection.settimeout(WAIT_S)
    try:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: door\r\n\r\n")
        return connection.recv(16)
    except OSError:
        return b""


def _requested(door: str, method: str, path: str) -> str | None:
    """What a request gets beyond a refusal."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        request = urllib.request.Request(f"http://{door}{path}", method=method, headers=headers)
        if method == "POST":
            request.data = _JOB
            request.add_header("Content-Type", "application/json")
        try:
            with opener.open(request, timeout=WAIT_S) as response:
                # A server of Prometheus' library gives its metrics at every path.
                return "metrics" if "version=" in response.headers.get("Content-Type", "") else f"{method} {path}"
        except urllib.error.HTTPError as error:
            if error.code not in (401, 403, 404, 405):
                return f"{method} {path} ({error.code})"
        except OSError:
            continue
    return None


def _called(channel: grpc.Channel, call: str, token) -> grpc.StatusCode:
    try:
        channel.unary_unary(call)(b"", timeout=WAIT_S, metadata=token)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _answers(what) -> str:
    return f"answers: {', '.join(found)}" if (found := list(what)) else "refused"


def main() -> None:
    """Knock at all of them."""
    with ThreadPoolExecutor(4) as threads:
        print(json.dumps(dict(zip(sys.argv[1:], threads.map(knock, sys.argv[1:]), strict=True))), flush=True)
    os._exit(0)  # without waiting for what never answers


if __name__ == "__main__":
    main()
