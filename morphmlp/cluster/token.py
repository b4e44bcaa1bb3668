"""The token that every client of a Ray cluster shows: where Ray finds it, and that nobody else reads it here."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

MODE = "RAY_AUTH_MODE"
_TOKEN = "RAY_AUTH_TOKEN"


def shows_token() -> bool:
    """Whether Ray shows a token here."""
    return os.environ.get(MODE, "").lower() == "token"


def known_token() -> str | None:
    """What Ray would show: from the environment, from the file that it names, or from the home folder."""
    if token := os.environ.get(_TOKEN):
        return token.strip()
    try:
        return _file().read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def keep_token_private() -> None:
    """Take the token's file away from other users of this machine: Ray writes it readable for all."""
    with contextlib.suppress(OSError):  # no file, or mounted by whoever looks after its rights
        mode = stat.S_IMODE(_file().stat().st_mode)
        if mode & 0o077:
            _file().chmod(mode & 0o700)


def have_token() -> None:
    """Before Ray starts here, which then requires a token: one that only this process and its children know.

    Ray would write one into the home folder, for all users to read. It stays for the process's life, as what Ray has
    read once does.
    """
    if known_token() is None:
        os.environ[_TOKEN] = secrets.token_hex(32)


def _file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
