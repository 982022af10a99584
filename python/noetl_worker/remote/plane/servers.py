"""The control planes a worker knows: which of them it asks at all, and how it goes with each.

A notification names its server, and whoever may publish to NATS writes notifications: a worker that asked any server
would run what a stranger answers. So only servers that the settings name are contacted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from noetl_worker.observability import metrics
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.remote.plane.retry_pace import RetryPace
from noetl_worker.remote.plane.store_route import StoreRoute
from noetl_worker.settings import values as setting_values
from noetl_worker.settings.settings import Settings

MAX_SERVERS: Final = 64
"""URLs of notifications that are remembered; more than a fleet has, fewer than a flood of made-up ones."""
CONNECTIONS_BESIDE_SLOTS: Final = 8
AUTH_PAUSE_S: Final = 30.0
"""For so long a server that refuses the credentials is asked for no command; its messages wait as long."""
_MAX_URL_CHARS: Final = 300
log = structlog.get_logger("noetl_worker")


@dataclass(slots=True)
class PlaneServer:
    """How much one plane takes at present, and how it goes with what it refuses."""

    gate: Gate
    store_gate: Gate
    """In front of its result store: one that is down must not hold up claims and events."""
    retry_pace: RetryPace
    alone: Gate
    """In front of that one: a result that holds up the plane waits for the one before it."""
    store_route: StoreRoute = field(default_factory=StoreRoute)
    batch_bytes: int | None = None
    """What it said that a batch of events may have, when it refused one."""


class Servers:
    """Not for several threads."""

    def __init__(self, settings: Settings) -> None:
        self.configured: Final = normal_url(settings.server_url)
        self._trusted = tuple(dict.fromkeys((self.configured, *map(normal_url, settings.trusted_servers))))
        self._shown = tuple((_shown(url), url) for url in self._trusted)
        self.full: Final = settings.max_concurrent + CONNECTIONS_BESIDE_SLOTS
        self._known: dict[str, PlaneServer] = {}
        """Of those that the settings name, and so bounded, as `paused` is."""
        self.paused: Final[dict[str, float]] = {}
        """Which of them have refused the credentials, and until when they are asked for no command (monotonic)."""
        self._logged: set[str] = set()
        self._asked: dict[str, str] = {}
        """Ways to write a trusted URL, and that URL."""

    def to_ask(self, named: str) -> str:
        """The URL to ask where a notification names this server ("" when it names none).

        Another name of the configured plane is answered there as by its own; a forged one is unknown there.
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
        """Whether a request to this URL carries the bearer token: to those that the settings name alone."""
        return any(url.startswith(f"{server}/") for server in self._trusted)

    def at(self, url: str) -> PlaneServer:
        """What is remembered of the plane at this address."""
        if url not in self._known:
            self._known[url] = PlaneServer(Gate(self.full), Gate(self.full), RetryPace(), Gate(1))
        return self._known[url]

    def named(self) -> Iterator[tuple[str, PlaneServer | None]]:
        """The planes that the settings name, without user-info; None: not asked yet."""
        return ((name, self._known.get(url)) for name, url in self._shown)

    def pause(self, url: str) -> None:
        """It refuses the credentials: it alone is asked for no command for a while."""
        now = time.monotonic()
        if self.pause_left_s(url) <= 0:
            log.error(
                "server_paused",
                server_url=url,
                seconds=AUTH_PAUSE_S,
                advice="it refuses the credentials: it has to accept this worker's NOETL_INTERNAL_API_TOKEN",
            )
            self.paused[url] = now + AUTH_PAUSE_S

    def pause_left_s(self, url: str) -> float:
        return max(0.0, self.paused[url] - time.monotonic()) if url in self.paused else 0.0

    def open_share(self) -> float:
        """How far the gate of the least troubled plane is open, above 0 and at most 1.

        The least: a plane that is down must not hold up the commands of the others.
        """
        return max((server.gate.open_share() for server in self._known.values()), default=1.0)

    def _log_untrusted(self, url: str) -> None:
        """Once for each URL, as long as they are few."""
        if url in self._logged or len(self._logged) > MAX_SERVERS:
            return
        self._logged.add(url)
        if len(self._logged) > MAX_SERVERS:
            log.warning("more_servers_not_named", advice="they are counted in noetl_worker_servers_not_named_total")
            return
        log.warning(
            "server_not_named", server_url=_shown(url), claimed_at=self.configured, advice=self._line_to_add(url)
        )

    def _line_to_add(self, url: str) -> str:
        others = [server for server in self._trusted if server != self.configured]
        try:
            setting_values.url("http", "https")(url)
        except ValueError:
            return "that is no URL of a control plane: look who may publish command notifications"
        if url != _shown(url) or set(url) & {",", " "}:
            return "if it is another control plane of yours, name it in NOETL_WORKER_TRUSTED_SERVERS"
        line = f"NOETL_WORKER_TRUSTED_SERVERS={','.join([*others, url])}"
        return f"if it is another control plane of yours, set {line}"


def normal_url(url: str) -> str:
    """Without trailing `/` and `/api`, as the planes' own workers do (protocol/notification.md#message)."""
    url = url.strip().rstrip("/")
    while url.endswith("/api"):
        url = url[: -len("/api")].rstrip("/")
    return url


def _shown(url: str) -> str:
    """For the log: without user-info, on one line that is not too long."""
    scheme, separator, rest = url.partition("://")
    text = f"{scheme}{separator}{rest.rpartition('@')[2]}"[:_MAX_URL_CHARS]
    return "".join(char if char.isprintable() else "?" for char in text)
