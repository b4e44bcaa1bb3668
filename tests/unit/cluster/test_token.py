"""Nobody but its owner reads the token's file."""

import os
from pathlib import Path

import pytest

from morphmlp.cluster.token import have_token, keep_token_private, known_token


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what is set here is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def token_file(folder: Path, mode: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "auth_token").write_text("secret\n", encoding="utf-8")
    (folder / "auth_token").chmod(mode)
    return folder / "auth_token"


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o600), (0o666, 0o600), (0o440, 0o400), (0o600, 0o600)])
@pytest.mark.parametrize("named", [False, True])
def test_others_lose_their_rights_to_the_file(
    before: int, after: int, named: bool, home: Path, monkeypatch: pytest.MonkeyPatch
):
    file = token_file(home / ("named" if named else ".ray"), before)
    if named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    keep_token_private()
    assert file.stat().st_mode & 0o777 == after
    assert known_token() == "secret"


def test_without_a_token_none_is_written_to_the_home_folder(home: Path):
    keep_token_private()
    have_token()
    assert len(known_token() or "") == 64
    assert not list(home.iterdir())
    assert len(os.environ.pop("RAY_AUTH_TOKEN")) == 64
    token_file(home / ".ray", 0o600)
    have_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
