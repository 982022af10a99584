"""A file with the bearer token of a running `noetl-worker dev`, a temporary control plane on the user's machine.

Other CLI commands of the user read the token there, and so do workers that the user starts for this plane. The file's
name has the plane's port, so a CLI command finds the file by the plane's address. A killed `dev` leaves its file
behind, with a token that is not valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from noetl_worker.pipeline.outbox.directory import make_file, require_own_directory, require_own_file, state_directory

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def token_file(server_url: str) -> Path:
    return state_directory("dev") / f"plane-{urlsplit(server_url).port}.token"


def find_token_file(server_url: str) -> Path | None:
    """Return the token file of the temporary plane (`noetl-worker dev`) that this user runs at `server_url`. Return
    None if there is no file.

    Raises:
        OSError: the file cannot be read, or others can access it; the text says what to do.
    """
    address = urlsplit(server_url)
    if address.scheme != "http" or address.hostname not in _LOOPBACK:
        return None
    file = token_file(server_url)
    try:
        require_own_directory(file.parent)
        require_own_file(file)
    except FileNotFoundError:
        return None
    return file


@contextmanager
def token_in_file(server_url: str, token: str) -> Iterator[None]:
    """Write the token of the temporary plane at `server_url` to its token file. Delete the file at the end of the
    `with` block.

    Raises:
        OSError: the file cannot be written, or others can write to its directory; the text says what to do.
    """
    file = token_file(server_url)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_own_directory(file.parent)
    file.unlink(missing_ok=True)  # left by a `dev` that was killed
    make_file(file)
    file.write_text(token, encoding="ascii")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
