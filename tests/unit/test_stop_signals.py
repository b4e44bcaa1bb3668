"""Signals to a command: which exit code they give, who is left in peace, and what a library may not change."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from morphmlp import stop_signals
from morphmlp.cli import run
from morphmlp.errors import RunStoppedError
from morphmlp.stop_signals import Interrupted, StopSignals, handlers_kept, undisturbed

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_every_command_takes_a_signal_for_the_wish_to_end(signum, code, capsys):
    before = signal.getsignal(signum)
    tidied = []

    def main():
        try:
            os.kill(os.getpid(), signum)
        finally:
            tidied.append(True)

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert (caught.value.code, tidied) == (code, [True])
    assert capsys.readouterr().err == "stopped\n"
    assert signal.getsignal(signum) is before


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_command_that_saved_first_says_how_to_go_on(signum, code, capsys):
    def main():
        raise RunStoppedError("stopped; continue with the same command", signum=signum)

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == code
    assert capsys.readouterr().err == "stopped; continue with the same command\n"


def test_a_hangup_that_nohup_ignores_stays_ignored():
    program = (
        "import os, signal\nfrom morphmlp.cli import run\nrun(lambda: os.kill(os.getpid(), signal.SIGHUP), long=True)\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$0" -c "$1"', sys.executable, program], check=False, timeout=60
    )
    assert done.returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_first_signal_is_noted_where_somebody_can_save_and_a_second_ends(signum, monkeypatch):
    monkeypatch.setattr(stop_signals, "SAME_WISH_S", 0.0)
    stops = StopSignals()
    with stops.installed(), stops.saving_first():
        os.kill(os.getpid(), signum)
        assert stops.received == signum
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signum)
    assert caught.value.signum == signum


def test_what_a_library_does_to_the_handlers_is_undone():
    with StopSignals().installed():
        with handlers_kept():
            signal.signal(signal.SIGTERM, lambda *_: os._exit(134))
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_meets_a_library_s_own_handler_is_not_lost():
    def start_library():
        with handlers_kept():
            signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(signum))
            os.kill(os.getpid(), signal.SIGTERM)

    with StopSignals().installed(), pytest.raises(Interrupted) as caught:
        start_library()
    assert caught.value.signum == signal.SIGTERM
    with pytest.raises(SystemExit), handlers_kept():
        sys.exit(1)


def test_what_is_started_meanwhile_is_deaf_to_a_terminal_that_closes():
    program = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    with handlers_kept():
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_a_hangup_that_comes_meanwhile_is_not_lost():
    # In a process without other threads, which could take the signal first.
    program = """
import os, signal
from morphmlp.stop_signals import Interrupted, StopSignals, handlers_kept
try:
    with StopSignals().installed():
        with handlers_kept():
            os.kill(os.getpid(), signal.SIGHUP)
            print("inside")
        print("not reached")
except Interrupted as stop:
    print(stop)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["inside", "SIGHUP"]


def test_no_signal_comes_between_while_something_is_brought_to_its_end():
    with StopSignals().installed(), undisturbed():
        for signum, _ in SIGNALS:
            os.kill(os.getpid(), signum)


@pytest.mark.parametrize("saves", [True, False])
def test_a_signal_that_make_passes_on_is_no_second_wish(saves, monkeypatch):
    """The first lets the workers save, or ends the command; the second comes while that is under way."""
    clock = [100.0]
    monkeypatch.setattr(stop_signals, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    stops, unwound = StopSignals(), []
    with StopSignals().installed(), stops.installed(), stops.saving_first() if saves else nullcontext():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            clock[0] += 0.01
            os.kill(os.getpid(), signal.SIGTERM)
            unwound.append(True)
        clock[0] += 0.5
        os.kill(os.getpid(), signal.SIGINT)
        assert (stops.received, unwound) == ((signal.SIGTERM, []) if saves else (None, [True]))
        clock[0] += 0.5  # and a person who doesn't want to wait
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("to", ["os.killpg(0, {})", "[os.kill(p, {}) for p in (helper.pid, other.pid, os.getpid())]"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_neither_a_signal_to_the_group_nor_one_to_every_process_ends_what_was_started(to, signum):
    program = f"""
import os, signal, subprocess, sys, time
from morphmlp.stop_signals import Interrupted, StopSignals, handlers_kept
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
with StopSignals().installed():
    with handlers_kept():
        helper = subprocess.Popen(sleep, preexec_fn=lambda: None)  # as Ray starts its own
    other = subprocess.Popen(sleep)
    try:
        {to.format(signum.value)}
    except Interrupted:
        print(other.wait(20), helper.poll())
helper.kill()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert done.stdout.split() == [str(-signum), "None"]
