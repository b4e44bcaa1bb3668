"""The parts of the measurement of shared decoding that need no Ray: what counts as a decode, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from morphmlp.benchmarks.ray_shared_decoding import CountedCache, measure_shared_decoding
from morphmlp.data.clips.extract import ExtractedClips
from morphmlp.errors import ClusterError


def test_decodes_are_counted_and_clips_that_were_found_are_not(tmp_path):
    cache = CountedCache(folder=str(tmp_path / "clips"), max_bytes=2**30, log=str(tmp_path / "log"))
    clip = ExtractedClips(clips=np.zeros((1, 2, 4, 4, 3), np.uint8), concealed=0)
    for key in ("a" * 64, "b" * 64, "a" * 64, "a" * 64):
        cache.get(key, lambda: clip)
    assert Path(cache.log).read_text().splitlines() == ["a" * 64, "b" * 64]


def test_a_cluster_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ClusterError, match="RAY_ADDRESS is set"):
        measure_shared_decoding(tmp_path, videos=8, rounds=1, progress=None)
