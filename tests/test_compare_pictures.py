"""`docs/compare_pictures.py` says what it lacks; its pictures are looked at by people."""

import importlib

import pytest
from empty_store import empty_store

from morphmlp.errors import MorphMLPError
from morphmlp.tracking import RunWriter, open_run


@pytest.fixture
def command(monkeypatch, request, tmp_path):
    monkeypatch.syspath_prepend(request.config.rootpath / "docs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return importlib.import_module("compare_pictures").main


@pytest.mark.parametrize(
    ("arguments", "searched", "said"),
    [
        (["--sweep", "nothing", "--browser", "any"], "", "the record has no run named nothing"),
        (["--sweep", "lonely", "--browser", "any"], "", "lonely has no finished trials"),
        (["--sweep", "lonely"], "/nowhere", "no Chromium is installed here: `apt install chromium`"),
    ],
)
def test_what_is_missing_is_said_in_a_line_and_nothing_is_written(
    command, tmp_path, monkeypatch, *, arguments, searched, said
):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    empty_store(uri)
    RunWriter(uri, open_run(uri, experiment="demo", run_name="lonely", tags={}, params={})).finish("FINISHED")
    if searched:
        monkeypatch.setenv("PATH", searched)
    with pytest.raises(MorphMLPError) as caught:
        command.main([*arguments, "--output", str(tmp_path / "pictures")], standalone_mode=False)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pictures").exists()
