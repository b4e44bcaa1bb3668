"""A session's terminal: Ray's pages about lost processes stay out of it, everything else comes through."""

import inspect
import sys
import threading

import pytest
import ray._private.worker

from morphmlp.cluster.ray_session import RAY_MESSAGES, without_ray_messages


def test_what_ray_prints_of_lost_nodes_is_dropped_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    with without_ray_messages():
        for name in (RAY_MESSAGES, "another"):
            thread = threading.Thread(target=print, args=(f"from {name}",), name=name)
            thread.start()
            thread.join()
        print("a result")
        sys.stdout.flush()
    assert capsys.readouterr().out == "from another\na result\n"


def test_ray_prints_them_in_a_thread_of_that_name():
    assert f'name="{RAY_MESSAGES}"' in inspect.getsource(ray._private.worker.connect)
    assert "sys.stdout" in inspect.getsource(ray._private.worker.print_to_stdstream)
