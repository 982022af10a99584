"""The addresses that tools may connect to over HTTP: all that the worker's operator does not deny.

Only the rule is here, because a worker sets it at its start and needs no HTTP client then. The connections are in
`egress_backend.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from noetl_worker.errors import ConfigurationError
from noetl_worker.settings.networks import DEFAULT_DENIED, OWN_PORTS, Networks, parse_items

if TYPE_CHECKING:
    import httpx

_LOOPBACK: Final = Networks.parse(("loopback",))
_denied = Networks.parse(parse_items(DEFAULT_DENIED))


class EgressDenied(ConfigurationError):
    """The worker does not connect to this address."""

    def __init__(self, host: str, address: str, reason: str) -> None:
        where = host if host == address else f"{host} ({address})"
        super().__init__(f"the worker does not connect to {where}: {reason}", code="egress")


def deny(items: Iterable[str]) -> None:
    """Set the addresses this process's tools must not connect to: items of networks.py. Raises ValueError."""
    global _denied
    _denied = Networks.parse(items)


def denied() -> tuple[str, ...]:
    """Return the denied items, for `deny` in another process."""
    return tuple(dict.fromkeys(item for item, _ in _denied.items))


async def check_literal(request: httpx.Request) -> None:
    """Check the host of a URL if it is an address. This is a client's event hook: it sees requests to proxies too."""
    with suppress(ValueError):  # the host is a name
        check(request.url.host, unquote(request.url.host))


def refusal(host: str, address: str, port: int | None) -> str | None:
    """Return why a connection to this address of a host is denied; None if it is allowed, or for a name."""
    try:
        check(host, unquote(address), port)
    except EgressDenied as error:
        return str(error)
    except ValueError:
        return None
    return None


def check(host: str, address: str, port: int | None = None) -> None:
    """Check an address. Raises EgressDenied; ValueError for a text that is no address."""
    item = _denied.find_item(address)
    if item is not None:
        raise EgressDenied(host, address, f"its NOETL_WORKER_EGRESS_DENY has {item}")
    if port in OWN_PORTS and _LOOPBACK.find_item(address) is not None:  # probes answer anybody on the same machine
        raise EgressDenied(host, address, f"port {port} is the worker's own probe port: use another address")
