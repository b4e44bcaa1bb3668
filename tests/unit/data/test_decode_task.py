"""What a decode task tells of its videos: the processor time of the decoder's process and its own."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from morphmlp.data.clips import CutClips
from morphmlp.data.columns import DECODED
from morphmlp.data.decode_task import DecodePolicy, DecodeTask
from morphmlp.data.decoding.isolated import isolated_videos

OWN_CPU_S = 0.08


class WorkingCutter:
    """Reads one frame, and works for a while itself on files named `own*`."""

    def cut(self, videos, *, path, video_id, epoch, num_frames, crc32):
        frames = videos.open(path, num_frames=num_frames, crc32=crc32).read([0]).frames
        if path.startswith("right-own"):
            end = time.thread_time() + OWN_CPU_S
            while time.thread_time() < end:
                pass
        return CutClips(clips=frames.copy()[None], concealed=0)


@pytest.fixture
def decode(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # a child imports from where its parent does
    decoder, second, timeout_s = "faulty_decoders:working", "pyav", 20.0

    def run(*paths):
        table = pa.table(
            {
                "row": pa.array(range(len(paths)), pa.int64()),
                "epoch": pa.array([0] * len(paths), pa.int64()),
                "video_id": list(paths),
                "path": list(paths),
                "label": pa.array([0] * len(paths), pa.int32()),
                "num_frames": pa.array([None] * len(paths), pa.int32()),
                "crc32": pa.array([None] * len(paths), pa.int64()),
            }
        )
        policy = DecodePolicy(decoder=decoder, retry_with=second, timeout_s=timeout_s)
        return DecodeTask(cutter=WorkingCutter(), policy=policy)(table)

    yield run
    for name in (decoder, second):
        isolated_videos(name, timeout_s).close()


def test_each_video_has_its_processor_time_broken_ones_too(decode):
    from faulty_decoders import WORK_CPU_S

    decoded = decode("right.video", "right-own.video", "torn.video", "right.video")
    assert decoded.schema == DECODED
    assert [bool(error) for error in decoded["error"].to_pylist()] == [False, False, True, False]
    assert np.all(decoded["cpu_s"].to_numpy() > 0)
    _, own, torn, again = decoded["cpu_s"].to_numpy()
    assert own >= OWN_CPU_S
    assert torn >= WORK_CPU_S
    assert again < torn
