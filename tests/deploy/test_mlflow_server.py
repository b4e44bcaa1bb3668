"""The record of a cluster: PostgreSQL and MLflow's server for real, a backup, and its restoration elsewhere."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cluster_files import ROOT

from morphmlp.drill.services import free_port

SCRIPT = ROOT / "deploy/mlflow_server.sh"
POSTGRES = shutil.which("pg_ctl") or list(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
WRITE = """
import mlflow
mlflow.set_experiment("kept")
with mlflow.start_run(run_name="one"):
    mlflow.log_metric("top1", 71.5)
    mlflow.log_text("hello", "note.txt")
"""
READ = """
import mlflow
[run] = mlflow.search_runs(experiment_names=["kept"], output_format="list")
print(run.info.run_name, run.data.metrics["top1"], mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt"))
"""


@pytest.mark.long
@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL's programs aren't installed here")
def test_a_backup_brings_runs_and_artifacts_back_in_another_folder():
    folder = Path(tempfile.mkdtemp(prefix="ms."))
    folder.chmod(0o755)  # PostgreSQL's own user, where this one is root
    port = str(free_port())
    environment = os.environ | {
        "MLFLOW_PORT": port,
        "TMPDIR": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
    }

    def run(*words: object) -> str:
        done = subprocess.run(
            [*map(str, words)], env=environment, capture_output=True, text=True, check=False, timeout=240
        )
        return done.stdout if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr}"

    def server(*words: object) -> str:
        return run("bash", SCRIPT, *words)

    try:
        assert "records in" in server("start", folder / "old")
        assert run(sys.executable, "-c", WRITE).startswith("exit code") is False
        assert "backup.tar" in server("backup", folder / "old", folder / "backup.tar")
        assert server("stop", folder / "old") == ""
        assert "restored" in server("restore", folder / "new", folder / "backup.tar")
        assert "holds records already" in server("restore", folder / "new", folder / "backup.tar")
        assert "records in" in server("start", folder / "new")
        assert run(sys.executable, "-c", READ).strip() == "one 71.5 hello"
    finally:
        server("stop", folder / "old"), server("stop", folder / "new")
        shutil.rmtree(folder)


USERS = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{folder}/users.db
admin_username = head
admin_password = {password}
"""


@pytest.mark.long
def test_with_users_named_the_record_refuses_everybody_else(tmp_path: Path):
    password, port = "the-heads-own-password", str(free_port())
    (tmp_path / "users.ini").write_text(USERS.format(folder=tmp_path, password=password), encoding="utf-8")
    environment = os.environ | {
        "MLFLOW_PORT": port,
        "TMPDIR": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_DATABASE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "users.ini"),
    }

    def run(*words: object, **changes: str) -> str:
        done = subprocess.run(
            [*map(str, words)], env=environment | changes, capture_output=True, text=True, check=False, timeout=240
        )
        return done.stdout if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-3000:]}"

    try:
        assert "records in" in run("bash", SCRIPT, "start", tmp_path / "record")
        assert (tmp_path / "users.ini").stat().st_mode & 0o777 == 0o600
        head = {"MLFLOW_TRACKING_USERNAME": "head", "MLFLOW_TRACKING_PASSWORD": password}
        assert run(sys.executable, "-c", WRITE, **head).startswith("exit code") is False
        for stranger in ({}, head | {"MLFLOW_TRACKING_PASSWORD": "another"}, head | {"MLFLOW_TRACKING_USERNAME": "me"}):
            for script in (READ, WRITE):
                assert "401" in run(sys.executable, "-c", script, **stranger)
        assert run(sys.executable, "-c", READ, **head).strip() == "one 71.5 hello"
    finally:
        run("bash", SCRIPT, "stop", tmp_path / "record")
