"""CPU time by part: parts inside of parts, and the parts of a training clip."""

import time
from types import SimpleNamespace

import pytest
from coded_videos import CODINGS, write_video

from morphmlp.benchmarks.clip_parts import DECODING, measure_clip_parts, parts_table
from morphmlp.benchmarks.part_clock import REST, PartClock
from morphmlp.data.decoding.pyav.stream_decoder import StreamDecoder


def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_part_inside_another_counts_for_itself():
    work = SimpleNamespace()
    work.inner = lambda: busy(0.02)
    work.outer = lambda: (busy(0.01), work.inner(), work.inner())
    clock, outer = PartClock(), work.outer
    with clock.running({"outer": [(work, "outer")], "inner": [(work, "inner")]}):
        work.outer()
        busy(0.03)
    assert clock.seconds == pytest.approx({"outer": 0.01, "inner": 0.04, REST: 0.03}, abs=0.005)
    assert clock.calls == {"outer": 1, "inner": 2}
    assert work.outer is outer


@pytest.mark.slow
def test_the_parts_of_a_clip_are_all_of_its_cost(tmp_path):
    path = write_video(tmp_path / "a.mp4", CODINGS["short groups"])
    decode = StreamDecoder._frames
    parts = measure_clip_parts([str(path)], rounds=2)
    assert StreamDecoder._frames is decode
    assert sum(parts.shares.values()) == pytest.approx(1)
    assert sum(parts.cpu_ms.values()) == pytest.approx(parts.total_ms)
    assert all(parts.cpu_ms[part] > 0 for part in (DECODING, "opening the file", "scaling", "into the table"))
    assert 16 <= parts.packets <= 50
    assert parts.clips == 2
    assert len(parts_table(parts).splitlines()) == len(parts.shares) + 3
