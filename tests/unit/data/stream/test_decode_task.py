"""What a decode task reports of its videos: processor time, and the same of a clip that was decoded before."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from morphmlp.config.clip import ClipConfig
from morphmlp.data.clips.extract import ClipExtractor, ExtractedClips
from morphmlp.data.columns import DECODED
from morphmlp.data.decoding import backends
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.stream.clip_cache import ClipCache
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask

OWN_CPU_S = 0.08


@dataclass(frozen=True, kw_only=True)
class WorkingExtractor(ClipExtractor):
    """Reads one frame, and works for a while itself on files named `own*`."""

    clip: ClipConfig | None = None
    log: str | None = None
    """File that the path of every video is written to."""

    def extract(self, reader, key, labels=None):
        path = key.video_id
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{path}\n")
        decoded = reader.read([0])
        if path.startswith("right-own"):
            end = time.thread_time() + OWN_CPU_S
            while time.thread_time() < end:
                pass
        return ExtractedClips(clips=decoded.frames.copy()[None], concealed=decoded.concealed)


@pytest.fixture
def decode(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))  # a child imports from where its parent does
    first_and_second, timeout_s = ("faulty_decoders:working", "pyav"), 20.0

    def run(*paths, extractor=WorkingExtractor(), cache=None, decoders=first_and_second):
        table = pa.table(
            {
                "row": pa.array(range(len(paths)), pa.int64()),
                "seed": pa.array([0] * len(paths), pa.int64()),
                "epoch": pa.array([0] * len(paths), pa.int64()),
                "copy": pa.array([0] * len(paths), pa.int64()),
                "video_id": list(paths),
                "path": list(paths),
                "label": pa.array([0] * len(paths), pa.int32()),
                "num_frames": pa.array([None] * len(paths), pa.int32()),
                "crc32": pa.array([None] * len(paths), pa.int64()),
            }
        )
        decoder, second = decoders
        policy = DecodePolicy(decoder=decoder, retry_with=second, limits=Limits(timeout_s=timeout_s), cache=cache)
        return DecodeTask(extractor=extractor, policy=policy)(table)

    yield run
    for name in first_and_second:
        isolated_videos(name, Limits(timeout_s=timeout_s)).close()


def test_each_video_has_its_processor_time_broken_ones_too(decode):
    from faulty_decoders import WORK_CPU_S

    decoded = decode("right.video", "right-own.video", "broken.video", "right.video")
    assert decoded.schema == DECODED
    assert [bool(error) for error in decoded["error"].to_pylist()] == [False, False, True, False]
    assert np.all(decoded["cpu_s"].to_numpy() > 0)
    _, own, broken, again = decoded["cpu_s"].to_numpy()
    assert own >= OWN_CPU_S
    assert broken >= WORK_CPU_S
    assert again < broken


def test_a_video_whose_decoder_was_killed_from_outside_is_decoded_all_the_same(decode, tmp_path, monkeypatch):
    import faulty_decoders

    decoder = "faulty_decoders:killed"
    monkeypatch.setitem(backends._DECODERS, decoder, faulty_decoders.killed)  # its version is asked
    paths = [str(tmp_path / f"{name}.video") for name in ("once", "always", "once-more")]
    decoded = decode(*paths, decoders=(decoder, None))
    isolated_videos(decoder, Limits(timeout_s=20.0)).close()
    assert decoded["error"].to_pylist() == ["", "DecoderKilledError", ""]
    assert "SIGKILL, from outside: memory may have run out" in decoded["message"][1].as_py()
    right = faulty_decoders.frames([0]).tobytes()
    assert decoded["clips"].to_pylist() == [right, b"", right]
    assert decoded["retried"].to_pylist() == [False] * 3


@pytest.fixture
def cached(decode, tmp_path, monkeypatch):
    """Decodes videos of the working directory with a cache; `cached.extracted()` are the paths that were decoded."""
    import faulty_decoders

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(backends._DECODERS, "faulty_decoders:working", faulty_decoders.working)  # its version is asked
    for name in ("right.video", "right-own.video", "broken.video"):
        Path(name).write_bytes(name.encode())
    log = tmp_path / "log"
    log.touch()
    cache = ClipCache(folder=str(tmp_path / "clips"), max_bytes=2**30)

    def run(*paths, **options):
        return decode(*paths, extractor=WorkingExtractor(log=str(log)), cache=cache, **options)

    run.extracted = lambda: log.read_text().splitlines()
    return run


def test_a_clip_that_was_decoded_before_is_the_same_but_for_its_processor_time(cached):
    first, again = cached("right.video", "right-own.video"), cached("right.video", "right-own.video")
    assert cached.extracted() == ["right.video", "right-own.video"]
    assert again.drop_columns("cpu_s").equals(first.drop_columns("cpu_s"))
    assert first["concealed"].to_pylist() == [3, 3]
    assert first["cpu_s"][1].as_py() >= OWN_CPU_S > again["cpu_s"][1].as_py() > 0


def test_a_broken_video_is_tried_and_reported_each_time(cached):
    from faulty_decoders import WORK_CPU_S

    first, again = cached("broken.video"), cached("broken.video")
    assert first["cpu_s"][0].as_py() >= WORK_CPU_S
    assert again["cpu_s"][0].as_py() >= WORK_CPU_S
    assert first["message"].to_pylist() == again["message"].to_pylist() != [""]
    assert again["clips"][0].as_py() == b""


def test_a_clip_of_the_second_decoder_is_reported_as_such_each_time(cached):
    decoders = ("pyav", "faulty_decoders:working")
    first, again = cached("right.video", decoders=decoders), cached("right.video", decoders=decoders)
    assert first["retried"].to_pylist() == again["retried"].to_pylist() == [True]
    assert first["clips"].equals(again["clips"])
    assert cached.extracted() == ["right.video"]  # the first decoder fails again, the second one's clip is there


def test_a_video_that_is_not_there_has_the_decoders_words_with_a_cache_too(cached, decode):
    assert cached("absent.video")["message"].equals(decode("absent.video")["message"])
