"""OpenTelemetry traces, active only if the SDK is installed and its own variables name an exporter.

A trace has one span for each delivery of a command's message (`pipeline/command/trace.py`). Below it there is one span
for each stage of handling the command. Requests to the control plane, tools and log lines get their
command's trace ids from this module. If tracing is off, a command does none of this work.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from noetl_worker import __version__
from noetl_worker.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_END_S: Final = 3.0
_NO_HEADERS: Final[Mapping[str, str]] = {}
log = structlog.get_logger("noetl_worker.tracing")


class SpanOfCommand(Protocol):
    """The current span of a command: its ids for log lines, and its headers for requests."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers for requests: `traceparent`, and `tracestate` if there is one (W3C Trace Context)."""

    @property
    def ids(self) -> tuple[str, str] | None:
        """Return the trace and span ids as W3C hexadecimal digits; None if the trace has ended."""


CURRENT: Final[ContextVar[SpanOfCommand | None]] = ContextVar("noetl_worker_trace", default=None)
"""Span of the command that the current asyncio task runs, or None if tracing is off. The asyncio task of the command's
tool inherits the span."""


def trace_headers() -> Mapping[str, str]:
    """Return the headers with which another program continues the trace of the current command; empty without a
    trace."""
    current = CURRENT.get()
    return current.headers if current is not None else _NO_HEADERS


def add_trace_ids(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add `trace_id` and `span_id` to a log line of a command. A structlog processor."""
    current = CURRENT.get()
    if current is not None and (ids := current.ids) is not None:
        line["trace_id"], line["span_id"] = ids
    return line


def make_provider(environment: Mapping[str, str], *, worker_id: str) -> TracerProvider | None:
    """Return the tracer provider that OpenTelemetry's variables ask for, or None if these variables ask for no traces.

    OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) switches traces on; OTEL_SDK_DISABLED=true and
    OTEL_TRACES_EXPORTER=none switch them off. The SDK reads its own variables for the sampler, headers, timeouts and
    resource attributes.

    Raises:
        SettingsError: the variables name an exporter other than otlp, or the extra `otel` is not installed.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    is_asked_for = exporter not in ("", "none") or any(environment.get(name) for name in _ENDPOINTS)
    if not is_asked_for or exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if exporter not in ("", "otlp"):
        raise SettingsError("OTEL_TRACES_EXPORTER", exporter, "otlp or none")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        asked = next(name for name in ("OTEL_TRACES_EXPORTER", *_ENDPOINTS) if environment.get(name))
        raise SettingsError(
            asked, environment[asked], "pip install noetl-worker[otel], or unset the variable if you want no traces"
        ) from error
    attributes = {"service.version": __version__, "service.instance.id": worker_id}
    if not environment.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = "noetl-worker"
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    log.info("trace_export_enabled", sampler=environment.get("OTEL_TRACES_SAMPLER", "parentbased_always_on"))
    return provider


def flush_traces(provider: TracerProvider) -> None:
    """Send the remaining spans. A collector that does not answer delays the process's end by at most three seconds."""
    sending = threading.Thread(target=provider.shutdown, name="noetl-traces", daemon=True)
    sending.start()
    sending.join(_END_S)
    if sending.is_alive():
        log.warning(
            "traces_not_sent",
            advice="look at the collector that OTEL_EXPORTER_OTLP_ENDPOINT names: it did not answer in time",
        )
