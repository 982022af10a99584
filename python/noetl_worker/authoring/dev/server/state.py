"""The state of a development plane: its settings, its event log and the modules that answer its routes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from noetl_worker.authoring.dev.event_log import EventLog
from noetl_worker.authoring.dev.orchestration.router import Router
from noetl_worker.authoring.dev.plane_rules.python_rules import PythonPlaneRules
from noetl_worker.authoring.dev.plane_rules.rules import PlaneRules
from noetl_worker.authoring.dev.plane_rules.rust_rules import RustPlaneRules
from noetl_worker.authoring.dev.server.batches import Batches
from noetl_worker.authoring.dev.server.catalog import Catalog
from noetl_worker.authoring.dev.server.claims import Claims
from noetl_worker.authoring.dev.server.credentials import Credentials, Keychain
from noetl_worker.authoring.dev.server.dispatcher import Dispatcher
from noetl_worker.authoring.dev.server.executions import Executions
from noetl_worker.authoring.dev.server.inspection import Inspection
from noetl_worker.authoring.dev.server.python_events import PythonEvents
from noetl_worker.authoring.dev.server.reaper import Reaper
from noetl_worker.authoring.dev.server.registry import RuntimeRegistry
from noetl_worker.authoring.dev.server.results import Results
from noetl_worker.authoring.dev.server.rust_events import RustEvents
from noetl_worker.authoring.dev.server.variables import Variables
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect

Fault: TypeAlias = Callable[[Request], "Response | Awaitable[Response | None] | None"]
"""A function with which a test simulates faults of the plane. The plane calls the function with each request. The
function may wait, and may return the answer. If the function returns None, the request's own handler answers."""


class PlaneState:
    """All data of a plane, and the objects that answer its routes."""

    def __init__(self, settings: PlaneSettings | None = None, *, nats_url: str | None = None) -> None:
        """Create an empty plane. Without `nats_url`, no notifications are published."""
        self.settings: Final = settings or PlaneSettings()
        self.nats_url: Final = nats_url
        chosen = self.settings
        self.log: Final = EventLog(chosen)
        ids = self.log.ids
        self.rules: Final[PlaneRules] = RustPlaneRules() if chosen.dialect is Dialect.RUST else PythonPlaneRules()
        self.results: Final = Results(chosen, ids)
        self.registry: Final = RuntimeRegistry(chosen, ids)
        self.variables: Final = Variables(chosen)
        self.credentials: Final = Credentials(chosen, ids)
        self.keychain: Final = Keychain(chosen, self.credentials)
        self.catalog: Final = Catalog(chosen, ids)
        router = Router(self.rules)
        self.dispatcher: Final = Dispatcher(chosen, self.log, self.rules, self.results)
        self.executions: Final = Executions(chosen, self.log, self.catalog, self.keychain, router, self.dispatcher)
        self.inspection: Final = Inspection(chosen, self.log, self.executions)
        self.claims: Final = Claims(chosen, self.log, self.registry, self.executions)
        self.python_events: Final = PythonEvents(self.log, self.executions, router, self.dispatcher, self.results)
        self.rust_events: Final = RustEvents(self.log, self.executions, router, self.dispatcher)
        self.batches: Final = Batches(self.log, self.python_events, self.dispatcher)
        self.reaper: Final = Reaper(chosen, self.log, self.executions, self.registry, self.dispatcher)
        self.started_at: Final = time.time()
        self.requests: Final[Counter[str]] = Counter()
        """Number of requests by "METHOD path template", for example "POST /api/commands/{event_id}/claim"."""
        self.fault: Fault | None = None
        """The function that is called with each request first; None outside tests."""

    @property
    def dialect(self) -> Dialect:
        return self.settings.dialect
