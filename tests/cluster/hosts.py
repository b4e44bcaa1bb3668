"""Several hosts on one machine: namespaces joined by a bridge, an sshd in each, one shared folder at /mnt/shared.

A host has its own network, processes, name, `/tmp`, home, `/dev/shm` and `/etc/hosts` (as Debian writes it: its own
name is 127.0.1.1); the machine's other files it can only read. All of it hangs on one process in a process namespace of
its own: when that ends, however it ends, the kernel ends all the others and takes networks and mounts away. The
machine's own network gets nothing: the bridge lies in a namespace too.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES = {  # of Debian and Ubuntu
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
    "curl": "curl",
    "pg_ctl": "postgresql",
}
ROOT = Path(__file__).resolve().parents[2]
TMP_SIZE = "400m"
"""Of each host's /tmp: a file system of its own, which can be filled."""
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_START_TIMEOUT_S = 20.0
_NAMESPACES = ["--net", "--mount", "--pid", "--uts", "--ipc"]
_HOLD = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]


def why_not() -> str | None:
    """What this machine lacks for hosts, in words; None: nothing."""
    if os.geteuid() != 0:
        return "making hosts needs root"
    missing = {package for tool, package in PACKAGES.items() if not _has(tool)}
    if missing:
        return f"not installed: {', '.join(sorted(missing))} (apt install {' '.join(sorted(missing))})"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "sh", "-c", "ip link add type veth && mount -t tmpfs tmpfs /mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if tried.returncode == 0 else f"this machine allows no namespaces: {tried.stderr.strip()}"


def _has(tool: str) -> bool:
    found = shutil.which(tool, path=_PATH)
    return found is not None or (tool == "pg_ctl" and any(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")))


class Host:
    """One of them."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder

    @property
    def home(self) -> Path:
        """Its home as this process sees it."""
        return self.folder / "root"

    @property
    def pid(self) -> int | None:
        """Of its first process; None: it's off."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / "pid").read_text(encoding="utf-8"))
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            # Process 1 of its namespace, and no zombie: the number may be another process's by now.
            if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE) and "\nState:\tZ" not in status:
                return pid
        return None

    def processes(self) -> dict[int, str]:
        """Its processes by their number on the machine, with their command lines as `ps` shows them."""
        found: dict[int, str] = {}
        own = _namespace(self.pid)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if own is not None and _namespace(int(entry.name)) == own:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = b" ".join(words).decode("utf-8", "replace").strip()
        return found

    def command(self, script: str) -> list[str]:
        """The command that runs a shell script on it, as `ray exec` and `ray attach` do: with ~/.bashrc."""
        if self.pid is None:
            raise RuntimeError(f"{self.name} is off")
        return [
            *("nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "env", "-i", "HOME=/root", "TERM=dumb"),
            *("LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            *("bash", "-c", f"cd; if [ -f ~/.bashrc ]; then . ~/.bashrc; fi; {script}"),
        ]

    def run(self, script: str, *, timeout_s: float = 120.0, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a shell script on it; a failure carries what it said."""
        done = subprocess.run(
            self.command(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {script}\ncode {done.returncode}\n{done.stdout[-3000:]}")
        return done


class Hosts:
    """All of them, and what joins them."""

    def __init__(self, addresses: Mapping[str, str], folder: Path) -> None:
        """Start nothing yet.

        Args:
            addresses: Of each host by name, all in one /24.
            folder: Everything that they write lies below it.
        """
        self.folder = folder
        self.by_name = {name: Host(name, address, folder / "hosts" / name) for name, address in addresses.items()}
        self._holder: subprocess.Popen[bytes] | None = None
        self._starters: list[subprocess.Popen[bytes]] = []

    def __getitem__(self, name: str) -> Host:
        return self.by_name[name]

    @property
    def shared(self) -> Path:
        """The shared folder as this process sees it."""
        return self.folder / "shared"

    def start_all(self) -> None:
        """Make bridge, keys and homes, and switch every host on."""
        self.shared.mkdir()
        _keygen(self.folder / "key")
        self._holder = subprocess.Popen([*_HOLD, "sleep", "infinity"], stdin=subprocess.DEVNULL)
        _wait(lambda: self._inner() is not None, "the namespace of the bridge")
        gateway = next(iter(self.by_name.values())).address.rpartition(".")[0] + ".1"
        # Ray finds its own address by asking which way a public one lies; nothing can be sent there.
        self._ip(f"link add br0 type bridge\naddr add {gateway}/24 dev br0\nlink set br0 up\nlink set lo up")
        for host in self.by_name.values():
            for part in ("root/.ssh", "tmp", "etc"):
                (host.folder / part).mkdir(parents=True)
            (host.folder / "tmp").chmod(0o1777)
            shutil.copy(self.folder / "key.pub", host.folder / "etc/authorized_keys")
            _keygen(host.folder / "etc/hostkey")
            (host.folder / "etc/resolv.conf").touch()
            others = [f"{other.address} {other.name}" for other in self.by_name.values() if other is not host]
            lines = ["127.0.0.1 localhost", f"127.0.1.1 {host.name}", *others, ""]
            (host.folder / "etc/hosts").write_text("\n".join(lines), encoding="utf-8")
            _make_venv(host.home / "venv")
            self.start(host.name)

    def start(self, name: str) -> None:
        """Switch a host on, with what it had on its disk."""
        host = self[name]
        (host.folder / "pid").unlink(missing_ok=True)
        environment = {
            **{"NAME": name, "FOLDER": str(host.folder), "SHARED": str(self.shared), "TMP_SIZE": TMP_SIZE},
            **{"PYTHON": sys.base_prefix, "PACKAGES": str(_site_packages()), "CHECKOUT": str(ROOT), "PATH": _PATH},
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            starter = subprocess.Popen(
                [
                    *("nsenter", "-t", str(self._inner()), "--net", "--mount", "--pid"),
                    *("unshare", *_NAMESPACES, "--fork", "--kill-child", "bash"),
                    str(Path(__file__).with_name("host.sh")),
                ],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._starters.append(starter)
        _wait(lambda: host.pid is not None, f"{name}'s first process")
        self._ip(f"link add v-{name} type veth peer name eth0 netns {host.pid}")
        self._ip(f"link set v-{name} master br0 up")
        gateway = host.address.rpartition(".")[0] + ".1"
        try:
            host.run(
                f"ip addr add {host.address}/24 dev eth0; ip link set eth0 up; ip route add default via {gateway}; "
                "until (echo > /dev/tcp/127.0.0.1/22) 2> /dev/null; do sleep 0.1; done",
                timeout_s=_START_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{name} doesn't start: {(self.folder / f'{name}.log').read_text('utf-8')}") from error

    def power_off(self, name: str) -> None:
        """End a host without a word to anybody; its disk stays."""
        pid = self[name].pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            _wait(lambda: not Path(f"/proc/{pid}").exists() or self[name].pid is None, f"the end of {name}")

    def cable(self, name: str, *, plugged: bool) -> None:
        """Pull a host's cable, or plug it in."""
        self._ip(f"link set v-{name} {'up' if plugged else 'down'}")

    def stop_all(self) -> None:
        """End everything."""
        if self._holder is not None:
            # Its one child is process 1 of the namespace in which all others are.
            inner = self._inner()
            for pid in (inner, self._holder.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid or self._holder.pid, signal.SIGKILL)
            self._holder.wait()
        for starter in self._starters:
            starter.wait()

    def _inner(self) -> int | None:
        """The holder's child: process 1 of the process namespace."""
        if self._holder is None:
            raise RuntimeError("the hosts haven't been started")
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(entry.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == self._holder.pid:
                    return int(entry.parent.name)
        return None

    def _ip(self, lines: str) -> None:
        command = ["nsenter", "-t", str(self._inner()), "--net", "ip", "-batch", "-"]
        done = subprocess.run(command, input=lines, env={"PATH": _PATH}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ip: {lines}: {done.stderr}")


@contextlib.contextmanager
def lab_folder() -> Iterator[Path]:
    """A folder of its own, removed at the end; short, for the sake of sockets."""
    folder = Path(tempfile.mkdtemp(prefix="lab."))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _site_packages() -> Path:
    return next(Path(path).resolve() for path in sys.path if path.endswith("site-packages"))


def _make_venv(folder: Path) -> None:
    """A venv with the packages of this one, and programs of its own; `pip` installs nothing but a project's folder."""
    venv.EnvBuilder(symlinks=True).create(folder)
    [own] = folder.glob("lib/*/site-packages")
    (own / "ready.pth").write_text("/mnt/packages\n", encoding="utf-8")
    for script in Path(sys.executable).parent.iterdir():
        text = script.read_bytes() if script.is_file() else b""
        target = folder / "bin" / script.name
        if text.startswith(b"#!") and b"python" in text.split(b"\n", 1)[0] and not target.exists():
            target.write_bytes(b"#!/root/venv/bin/python\n" + text.split(b"\n", 1)[1])
            target.chmod(0o755)
    pip = folder / "bin/pip"
    pip.write_text(
        '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --editable ] && echo "$2" > '
        f"/root/venv/lib/{own.parent.name}/site-packages/editable.pth; shift; done\nexit 0\n",
        encoding="utf-8",
    )
    pip.chmod(0o755)


def namespaces_of(kind: str) -> set[str]:
    """All namespaces of a kind in which this machine has a process."""
    found = set()
    for link in Path("/proc").glob(f"[0-9]*/ns/{kind}"):
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


def _namespace(pid: int | None) -> str | None:
    with contextlib.suppress(OSError):
        return None if pid is None else str(Path(f"/proc/{pid}/ns/pid").readlink())
    return None


def _keygen(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", file.name, "-f", str(file)], check=True)


def _wait(reached, what: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not reached():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{_START_TIMEOUT_S:.0f} s without {what}")
        time.sleep(0.05)
