"""Addresses in the bridge's flags, written as HOST:PORT."""

from __future__ import annotations

from typing import NamedTuple

from noetl_worker.errors import SettingsError

_LOOPBACK = "127.0.0.1"


class FeedAddress(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def read_address(flag: str, text: str) -> FeedAddress:
    """Parse the value HOST:PORT of a command-line flag. `:9100` means port 9100 of 127.0.0.1.

    Raise SettingsError for any other form.
    """
    host, _, port = text.strip().rpartition(":")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535 or "/" in host:
        raise SettingsError(flag, text, "HOST:PORT, for example 0.0.0.0:9100; :9100 is this machine alone")
    return FeedAddress(host.strip("[]") or _LOOPBACK, int(port))
