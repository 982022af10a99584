"""The rule that a secret of the worker may be sent only to hosts that the operator has named.

A playbook names the secret and the address. Without this rule, a playbook author could have any secret sent to a server
of their own. The rule also holds for tokens of the worker's own identity at Google.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

import httpx

from noetl_worker.errors import CredentialError
from noetl_worker.tools.contract import ToolSettings

SECRET_VARIABLE: Final = "NOETL_SECRET_"
HOSTS_SUFFIX: Final = "_HOSTS"
_GOOGLE_HOSTS: Final = "NOETL_WORKER_GOOGLE_HOSTS"
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination of a request: all parts that a playbook can set and that decide who sees the request."""

    url: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Headers of the request. A `Host` header may direct the request to another site on the same server."""
    proxy: str | None = None
    """The proxy's address. A proxy can read the traffic unless the server's certificate is verified."""

    def hosts(self) -> Iterator[tuple[str, str]]:
        """Yield the pair (host, host:port) for each server or site that sees the request: of the URL, the proxy and
        `Host`."""
        given = [self.url, *([self.proxy] if self.proxy else [])]
        scheme = httpx.URL(self.url).scheme
        given += [f"{scheme}://{value}" for name, value in self.headers.items() if name.lower() == "host" and value]
        for address in given:
            url = httpx.URL(address)
            yield url.host, f"{url.host}:{url.port or _PORTS.get(url.scheme, 0)}"

    def place(self) -> str:
        """Return the destination's server as text: scheme, host, port, and the site that a `Host` header names. Two
        destinations with equal text are the same server, for instance before and after a redirect."""
        url = httpx.URL(self.url)
        server = url.netloc.decode("ascii")
        sites = {str(value) for name, value in self.headers.items() if name.lower() == "host" and value is not None}
        return f"{url.scheme}://{server}" + "".join(f" (Host: {site!r})" for site in sorted(sites - {server}))


def named_hosts(variable: str, settings: ToolSettings) -> tuple[str, ...]:
    """Return the host patterns to which the secret in `variable` may be sent, from NOETL_SECRET_<NAME>_HOSTS:
    api.example.com, *.example.com, 10.0.0.1:8080, or *."""
    text = settings.named.get(variable + HOSTS_SUFFIX, "")
    return tuple(filter(None, (host.strip().lower() for host in text.split(","))))


def check_destination(variable: str, destination: Destination, settings: ToolSettings) -> None:
    """Raise CredentialError if the secret in `variable` may not be sent to the destination."""
    hosts = named_hosts(variable, settings)
    if not hosts:
        raise CredentialError(
            f"http: auth: {variable} may not be sent to any host: set {variable}{HOSTS_SUFFIX} for the worker to the "
            "allowed hosts, comma-separated (* is any)"
        )
    _check(variable, variable + HOSTS_SUFFIX, hosts, destination)


def check_identity(destination: Destination, settings: ToolSettings) -> None:
    """Raise CredentialError if a token of the worker's own Google identity may not be sent to the destination."""
    hosts = tuple(host.lower() for host in settings.google_hosts)
    _check("the worker's own Google identity", _GOOGLE_HOSTS, hosts, destination)


def _check(what: str, variable: str, hosts: tuple[str, ...], destination: Destination) -> None:
    try:
        places = list(destination.hosts())
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise CredentialError(f"http: auth: {what}: the request's address is wrong: {error}; correct it") from error
    for host, with_port in places:
        if not any(fnmatchcase(host, pattern) or fnmatchcase(with_port, pattern) for pattern in hosts):
            raise CredentialError(
                f"http: auth: {what} may not be sent to {host!r}: {variable} allows {', '.join(hosts) or 'no host'}; "
                "add the host there, in the worker's environment (comma-separated; * is any)"
            )
