"""Control planes that a worker may contact, and the state of each plane.

A notification names its server, and anyone who may publish to NATS can write a notification. A worker that contacted
any named server would run a stranger's commands. So the worker contacts only servers that its settings name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from noetl_worker.observability import metrics
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.remote.plane.retry_pace import RetryPace
from noetl_worker.settings import values as setting_values
from noetl_worker.settings.settings import Settings

MAX_SERVERS: Final = 64
"""Largest number of server URLs from notifications that the worker remembers. A fleet has fewer planes, but forged
notifications could name any number."""
CONNECTIONS_BESIDE_SLOTS: Final = 8
AUTH_PAUSE_S: Final = 30.0
"""Seconds for which the worker sends no claims to a server that refused the credentials. Meanwhile the messages of that
server wait."""
_MAX_URL_CHARS: Final = 300
log = structlog.get_logger("noetl_worker")


@dataclass(slots=True)
class PlaneServer:
    """State of one plane: limits on concurrent requests to the plane (gates), and the pace of retries."""

    gate: Gate
    store_gate: Gate
    """Limit on concurrent requests to the result store. It is separate from `gate`, so that an outage of the store does
    not hold up claims and events."""
    retry_pace: RetryPace
    large_result_gate: Gate
    """Limit on large PUTs to the result store: one at a time, since a large PUT keeps the plane from answering. A large
    PUT passes `large_result_gate`, then `store_gate`."""
    store_route: str = ""
    """Path at which the result store answered last. Empty before the first answer of the store."""
    batch_bytes: int | None = None
    """Largest number of bytes of a batch of events, if the plane named a limit when it refused a batch. Otherwise
    None."""


class Servers:
    """Table of the control planes of one worker: settings, state and URL of each plane. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.configured: Final = normal_url(settings.server_url)
        self._trusted = tuple(dict.fromkeys((self.configured, *map(normal_url, settings.trusted_servers))))
        self._shown = tuple((_shown(url), url) for url in self._trusted)
        self.full: Final = settings.max_concurrent + CONNECTIONS_BESIDE_SLOTS
        self._known: dict[str, PlaneServer] = {}
        """States of the planes by URL. The table has only planes that the settings name, so it stays small."""
        self.paused: Final[dict[str, float]] = {}
        """Servers that refused the credentials, each with the monotonic time until which the server gets no claims."""
        self._logged: set[str] = set()
        self._asked: dict[str, str] = {}
        """Cache of `choose_url`: the trusted URL for each server URL that notifications have named. The named URL may
        differ from the trusted URL, for example by `/api` at the end."""

    def choose_url(self, named: str) -> str:
        """Return the URL to contact for a notification that names the server `named` ("" if the notification names no
        server).

        If the settings do not name this server, return the configured plane's URL: the name may be an alias of the
        configured plane. A forged command does no harm, because the configured plane does not know the command.
        """
        if named in self._asked:
            return self._asked[named]
        url = normal_url(named) or self.configured
        if url in self._trusted:
            if len(self._asked) < MAX_SERVERS:
                self._asked[named] = url
            return url
        metrics.SERVERS_NOT_NAMED.inc()
        self._log_untrusted(url)
        return self.configured

    def gets_token(self, url: str) -> bool:
        """Return whether a request to this URL carries the bearer token. Only servers that the settings name get the
        token."""
        return any(url.startswith(f"{server}/") for server in self._trusted)

    def server_at(self, url: str) -> PlaneServer:
        if url not in self._known:
            self._known[url] = PlaneServer(Gate(self.full), Gate(self.full), RetryPace(), Gate(1))
        return self._known[url]

    def named(self) -> Iterator[tuple[str, PlaneServer | None]]:
        """Return (URL without user-info, state) of each plane that the settings name.

        The state is None if the plane was not contacted yet.
        """
        return ((name, self._known.get(url)) for name, url in self._shown)

    def pause(self, url: str) -> None:
        """Stop claims at this server for AUTH_PAUSE_S seconds, because the server refuses the credentials."""
        now = time.monotonic()
        if self.pause_left_s(url) <= 0:
            log.error(
                "server_paused",
                server_url=url,
                seconds=AUTH_PAUSE_S,
                advice="make this server accept the worker's NOETL_INTERNAL_API_TOKEN: it refuses the credentials",
            )
            self.paused[url] = now + AUTH_PAUSE_S

    def pause_left_s(self, url: str) -> float:
        return max(0.0, self.paused[url] - time.monotonic()) if url in self.paused else 0.0

    def capacity_fraction(self) -> float:
        """Return the current limit on concurrent requests to a plane, divided by its full limit: above 0, at most 1.
        The largest ratio of all planes counts: a plane that is down must not hold up other planes' commands."""
        return max((server.gate.capacity_fraction() for server in self._known.values()), default=1.0)

    def _log_untrusted(self, url: str) -> None:
        """Warn of a URL that the settings do not name. Warn once for each URL, and of at most MAX_SERVERS URLs."""
        if url in self._logged or len(self._logged) > MAX_SERVERS:
            return
        self._logged.add(url)
        if len(self._logged) > MAX_SERVERS:
            log.warning(
                "more_servers_not_logged",
                advice="check who may publish command notifications: they name many servers that the settings lack. "
                "noetl_worker_servers_not_named_total counts these notifications",
            )
            return
        log.warning(
            "server_not_named", server_url=_shown(url), claimed_at=self.configured, advice=self._line_to_add(url)
        )

    def _line_to_add(self, url: str) -> str:
        others = [server for server in self._trusted if server != self.configured]
        try:
            setting_values.url("http", "https")(url)
        except ValueError:
            return "check who may publish command notifications: `server_url` is no URL of a control plane"
        if url != _shown(url) or set(url) & {",", " "}:
            return "if `server_url` is another control plane of yours, name it in NOETL_WORKER_TRUSTED_SERVERS"
        line = f"NOETL_WORKER_TRUSTED_SERVERS={','.join([*others, url])}"
        return f"if `server_url` is another control plane of yours, set {line}"


def normal_url(url: str) -> str:
    """Return a plane's URL without trailing `/` and `/api`, which the planes' own workers remove too
    (protocol/notification.md#message)."""
    url = url.strip().rstrip("/")
    while url.endswith("/api"):
        url = url[: -len("/api")].rstrip("/")
    return url


def _shown(url: str) -> str:
    """Return the URL for the log: without user-info, on one short line."""
    scheme, separator, rest = url.partition("://")
    text = f"{scheme}{separator}{rest.rpartition('@')[2]}"[:_MAX_URL_CHARS]
    return "".join(char if char.isprintable() else "?" for char in text)
