"""A port of this machine at which no server is."""

from __future__ import annotations

import socket
from functools import cache


@cache
def closed_port(host: str = "127.0.0.1") -> int:
    """It is bound and does not listen, so that a server of another test cannot take it."""
    held = socket.socket()
    held.bind((host, 0))
    _HELD.append(held)
    return int(held.getsockname()[1])


_HELD: list[socket.socket] = []
"""Until the process ends."""
