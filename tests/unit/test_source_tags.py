"""What MLflow's pages say of where a run comes from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from morphmlp import environment
from morphmlp.environment import source_tags
from morphmlp.record import Tags


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    answer = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return answer.stdout.strip()


def test_a_run_names_its_script_user_command_and_repository_to_mlflow(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setenv("LOGNAME", "ann")  # what a submitted job is given where all jobs run under one account
    script = Path(environment.__file__).parents[1] / "pipelines" / "train.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--run-name", "two words"])
    tags = source_tags(submitted=False)
    assert tags[Tags.SOURCE_NAME] == "pipelines/train.py"
    assert tags[Tags.SOURCE_TYPE] == "LOCAL"
    assert tags[Tags.USER] == "ann"
    assert tags[Tags.COMMAND] == "python pipelines/train.py --run-name 'two words'"
    assert source_tags(submitted=True)[Tags.SOURCE_TYPE] == "JOB"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann-of-the-lab")
    assert source_tags(submitted=True)[Tags.USER] == "ann-of-the-lab"


@pytest.mark.parametrize(
    ("origin", "recorded"),
    [
        ("https://ann:secret@git.example/a/b.git", "https://git.example/a/b.git"),
        ("https://secret@git.example:8443/a/b.git", "https://git.example:8443/a/b.git"),
        ("git@git.example:a/b.git", "git@git.example:a/b.git"),
        ("/srv/git/b.git", "/srv/git/b.git"),
        (None, None),
    ],
)
def test_commit_branch_and_repository_are_recorded_without_a_login(tmp_path, monkeypatch, origin, recorded):
    git(tmp_path, "init", "--quiet", "--initial-branch", "work")
    (tmp_path / "environment.py").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    if origin is not None:
        git(tmp_path, "remote", "add", "origin", origin)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    tags = source_tags(submitted=False)
    assert tags[Tags.SOURCE_COMMIT] == git(tmp_path, "rev-parse", "HEAD")
    assert tags[Tags.SOURCE_BRANCH] == "work"
    assert tags.get(Tags.SOURCE_REPOSITORY) == recorded


def test_a_user_without_a_name_is_unknown(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert source_tags(submitted=False)[Tags.USER] == "unknown"
