"""What an experiment looks like before it travels to workers."""

from dataclasses import replace
from pathlib import Path

from morphmlp.config import load_config
from morphmlp.ray_experiment import with_absolute_paths

CONFIG = load_config(Path(__file__).parent / "small_experiment.yaml")


def test_the_folder_of_decoded_clips_means_the_same_to_every_worker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = replace(CONFIG, ingest=replace(CONFIG.ingest, clip_cache="clips"))
    assert with_absolute_paths(named).ingest.clip_cache == str(tmp_path / "clips")
    assert with_absolute_paths(CONFIG).ingest.clip_cache is None
