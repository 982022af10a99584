"""The check whether a tool may connect to an address over HTTP. `egress_backend.py` makes the connections."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote

from noetl_worker.errors import ConfigurationError
from noetl_worker.settings.networks import EgressRule

if TYPE_CHECKING:
    import httpx


class EgressDenied(ConfigurationError):
    """Error: the egress rule forbids a connection to this address."""

    def __init__(self, host: str, address: str, reason: str) -> None:
        where = host if host == address else f"{host} ({address})"
        super().__init__(f"the worker does not connect to {where}: {reason}", code="egress")


async def check_literal(rule: EgressRule, request: httpx.Request) -> None:
    """Raise EgressDenied if the host of a request's URL is a denied IP address; host names pass. httpx calls this event
    hook before each request, also over a proxy."""
    with suppress(ValueError):  # the host is a name
        check(rule, request.url.host, unquote(request.url.host))


def refusal(rule: EgressRule, host: str, address: str, port: int | None) -> str | None:
    """Return the reason why the rule denies a connection to `address` of `host`. Return None if the rule allows it, or
    if `address` is not an IP address."""
    try:
        check(rule, host, unquote(address), port)
    except EgressDenied as error:
        return str(error)
    except ValueError:
        return None
    return None


def check(rule: EgressRule, host: str, address: str, port: int | None = None) -> None:
    """Check that the egress rule allows a host's IP address. Raises EgressDenied if not, and ValueError for a text that
    is not an IP address."""
    if (reason := rule.reason(address, port)) is not None:
        raise EgressDenied(host, address, reason)
