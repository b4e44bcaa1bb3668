"""Names and places that can't be written are refused before anything starts."""

from pathlib import Path

import pytest
from run_here import run_here

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.errors import ConfigError
from morphmlp.targets import ascii_name, json_file, plain_name, require_storage, writable_folder

ROOT = Path(__file__).parents[2]

SMALL = Path(__file__).parent / "small_experiment.yaml"


def stored_in(**fields: str) -> ExperimentConfig:
    return load_config(SMALL, {name.replace("__", "."): value for name, value in fields.items()})


@pytest.mark.parametrize("name", ["demo-1", "grün", "实验 7", "it's", "n" * 150, "ü" * 75])
def test_a_name_may_be_any_that_fits_a_folder_and_a_line(name: str):
    assert plain_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must be a plain name"),
        ("a/b", "'a/b' must be a plain name, without / and leading dots"),
        (".hidden", "must be a plain name"),
        ("two\nlines", r"'two\\nlines' holds line breaks"),
        ("a\tb", "holds line breaks or other signs"),
        ("\udcff", "holds line breaks or other signs"),
        (" a", "holds line breaks or other signs"),
        ("'\"", "both kinds of quotes"),
        ("n" * 151, "'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...' has 151 bytes; use at most 150"),
        ("ü" * 76, "has 152 bytes; use at most 150"),
    ],
)
def test_another_name_is_one_line_that_says_why(name: str, message: str):
    with pytest.raises(ConfigError, match=f"^--run-name: .*{message}") as caught:
        plain_name(name)
    assert "\n" not in str(caught.value)


def test_names_reach_ray_in_ascii_and_stay_apart():
    names = ["grün", "grün-", "grun", "größe", "实验", "实验 7", "demo-1"]
    given = [ascii_name(name) for name in names]
    assert len(set(given)) == len(names)
    assert all(name.isascii() and "/" not in name for name in given)
    assert ascii_name("demo-1") == "demo-1"


def test_json_goes_to_a_file_that_can_be_made(tmp_path: Path):
    assert json_file(tmp_path / "new" / "result.json") == tmp_path / "new" / "result.json"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.json").touch()
    json_file(tmp_path / "old.json")


def test_json_at_a_folder_or_below_a_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"--json: {tmp_path} is a folder; name a file, such as"):
        json_file(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"--json: .*: {tmp_path}/file is a file; name another file"):
        json_file(tmp_path / "file" / "result.json")


@pytest.mark.parametrize("field", ["cluster.storage", "checkpoint.storage"])
def test_storage_that_is_a_file_is_refused_with_its_field(field: str, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"^{field}: {tmp_path}/file/a: {tmp_path}/file is a file; name a folder"):
        require_storage(stored_in(**{field: f"{tmp_path}/file/a"}), "run")


@pytest.mark.parametrize("folder", ["file", "file/clips", "/proc/clips"])
def test_a_clip_cache_that_cannot_be_used_is_refused(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "file").touch()
    config = stored_in(cluster__storage=str(tmp_path), ingest__clip_cache=str(tmp_path / folder))
    with pytest.raises(ConfigError, match=r"^ingest\.clip_cache: .*(is a file|can't be written to).*; name a folder"):
        require_storage(config, "run")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # it's the nodes' folder
    require_storage(config, "run")


def test_a_clip_cache_that_can_be_made_is_left_unmade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    require_storage(stored_in(cluster__storage=str(tmp_path), ingest__clip_cache=f"{tmp_path}/clips"), "run")
    assert list(tmp_path.iterdir()) == []


def test_storage_that_can_be_made_is_left_unmade(tmp_path: Path):
    require_storage(stored_in(cluster__storage=f"{tmp_path}/a/b", checkpoint__storage="s3://bucket/folder"), "run")
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_storage_of_checkpoints_only():
    with pytest.raises(ConfigError, match=r"cluster\.storage: s3://bucket: name a folder; .* checkpoint\.storage"):
        require_storage(stored_in(cluster__storage="s3://bucket"), "run")


def test_a_run_name_that_is_too_long_for_the_file_system_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cluster\.storage: .* can't be written to: File name too long"):
        require_storage(stored_in(cluster__storage=str(tmp_path / ("n" * 256))), "run")


def test_a_read_only_file_system_is_refused():
    # /proc takes no new files from anybody, as a disk that is mounted read-only.
    with pytest.raises(ConfigError, match=r"cluster\.storage: /proc/runs: /proc can't be written to: "):
        require_storage(stored_in(cluster__storage="/proc/runs"), "run")


@pytest.mark.parametrize("script", ["train_demo.py", "sweep.py", "benchmark.py", "replay.py"])
def test_every_command_checks_where_json_goes(script: str, tmp_path: Path):
    arguments = {"benchmark.py": ["planner"], "replay.py": ["run", "1"]}.get(script, [])
    ended = run_here(ROOT / "pipelines" / script, *arguments, "--json", tmp_path, cwd=ROOT)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "is a folder; name a file" in ended.stderr


def test_a_folder_below_a_file_is_refused_by_the_name_of_its_option(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert writable_folder(tmp_path / "new", "--output") == tmp_path / "new"
    with pytest.raises(ConfigError, match=rf"^--output: {tmp_path}/file/x: {tmp_path}/file is a file; name another"):
        writable_folder(tmp_path / "file" / "x", "--output")
    assert not (tmp_path / "new").exists()
