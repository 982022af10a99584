"""The trace of one delivery: a `process` span, and below it `claim`, `tool KIND`, `cases`, `events` and `ack`.

It is the command's progress as well, so what is traced is what the stop of a worker looks at: each phase that has a
name here is a span. Names and attributes are those of OpenTelemetry's messaging conventions; the trace goes on from the
notification's `traceparent` (a header, or in the `trace` of the body).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from noetl_worker import __version__
from noetl_worker.models import Envelope
from noetl_worker.observability.tracing import CURRENT
from noetl_worker.phases import Phase, Progress
from noetl_worker.settings.settings import Settings
from noetl_worker.settlement import OutcomeKind

if TYPE_CHECKING:
    from noetl_worker.jetstream.delivery import Delivery

__all__ = ["CommandTrace", "DeliveryTraces"]

_W3C: Final = TraceContextTextMapPropagator()
_NO_PARENT: Final = otel_context.Context()
_SPANS: Final = {
    Phase.CLAIMING: "claim",
    Phase.RUNNING: "tool",
    Phase.DECIDING: "cases",
    Phase.REPORTING: "events",
    Phase.SETTLING: "ack",
}
_FINE: Final = frozenset({OutcomeKind.REPORTED, OutcomeKind.FINISHED_BEFORE, OutcomeKind.FINISHED_HERE})


class DeliveryTraces:
    """Makes the trace of each delivery of a worker."""

    def __init__(self, provider: TracerProvider, settings: Settings, client_id: str) -> None:
        self._tracer = provider.get_tracer("noetl_worker", __version__)
        self._common = {
            "messaging.system": "nats",
            "messaging.destination.template": settings.nats_subject,  # spans are named after it: subjects are many
            "messaging.destination.subscription.name": settings.nats_consumer,
            "messaging.consumer.group.name": settings.nats_consumer,
            "messaging.client.id": client_id,
        }

    def of(self, delivery: Delivery) -> CommandTrace:
        return CommandTrace(self._tracer, delivery, self._common)


class CommandTrace(Progress):
    """The progress of a traced delivery."""

    __slots__ = (
        "_common",
        "_delivery",
        "_is_of_tool",
        "_is_recorded",
        "_notification",
        "_process",
        "_received_ns",
        "_stage",
        "_task",
        "_tracer",
        "_written",
        "_written_of",
    )

    def __init__(self, tracer: Any, delivery: Delivery, common: Mapping[str, str]) -> None:
        self._tracer, self._delivery, self._common = tracer, delivery, common
        self._received_ns = time.time_ns()
        self._process: Span | None = None
        self._stage: Span | None = None
        self._written_of: Span | None = None
        self._written: dict[str, str] = {}
        self._is_recorded = False
        self._is_of_tool = False
        self._notification: Envelope | None = None
        self._task: asyncio.Task[Any] | None = None
        super().__init__()

    # ── where the command is ──

    def enter(self, phase: Phase) -> None:
        super().enter(phase)
        if self._process is None:
            self._begin(None)
        if self._is_recorded:
            self._next_stage(phase)

    @property
    def notification(self) -> Envelope | None:
        return self._notification

    @notification.setter
    def notification(self, notification: Envelope | None) -> None:
        self._notification = notification
        if notification is not None and self._process is None:
            self._begin(notification)

    def _begin(self, notification: Envelope | None) -> Span:
        """In the command's own task: what runs in it, and in the task of its tool, belongs to this trace."""
        delivery = self._delivery
        carrier = _carrier(delivery.headers, notification)
        parent = _W3C.extract(carrier) if carrier else _NO_PARENT
        destination = self._common["messaging.destination.template"]
        span: Span = self._tracer.start_span(
            f"process {destination}", parent, SpanKind.CONSUMER, start_time=self._received_ns
        )
        self._is_recorded = span.is_recording()
        if self._is_recorded:
            span.set_attributes(
                {
                    **self._common,
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": delivery.subject,
                    "messaging.message.id": delivery.message_id,
                    "messaging.message.body.size": len(delivery.data),
                    "noetl.deliveries": delivery.num_delivered,
                }
            )
            if notification is not None:
                span.set_attribute("messaging.message.conversation_id", str(notification.execution_id))
                span.set_attribute("noetl.command_id", str(notification.command_id))
                span.set_attribute("noetl.step", notification.step)
        self._process = span
        CURRENT.set(self)
        otel_context.attach(set_span_in_context(span))
        return span

    def _next_stage(self, phase: Phase) -> None:
        self._end_stage()
        name = _SPANS.get(phase)
        if name is None or self._process is None:
            return
        parent, attributes, kind = set_span_in_context(self._process), {}, SpanKind.INTERNAL
        self._is_of_tool = phase is Phase.RUNNING
        if phase is Phase.RUNNING and self.command is not None:
            name = f"tool {self.command.kind}"
            attributes = {"noetl.tool_kind": self.command.kind, "noetl.attempt": self.command.attempt}
        elif phase is Phase.SETTLING:
            kind = SpanKind.CLIENT
            attributes = {**self._common, "messaging.operation.name": "ack", "messaging.operation.type": "settle"}
        self._stage = self._tracer.start_span(name, parent, kind, attributes)
        otel_context.attach(set_span_in_context(self._stage, parent))

    def _end_stage(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            if self.failure is not None and self._is_of_tool:
                stage.set_attribute("error.type", self.failure)
                stage.set_status(Status(StatusCode.ERROR, self.failure))
            stage.end()

    @property
    def task(self) -> asyncio.Task[Any] | None:
        return self._task

    @task.setter
    def task(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task
        if task is not None:
            task.add_done_callback(self._end)

    def _end(self, _task: asyncio.Task[Any]) -> None:
        """JetStream has its answer. What the command has left running (a pool's timer) is in no trace from now on."""
        self._end_stage()
        self._task = None  # its context has this trace: each would keep the other for the collector
        span, self._process, outcome = self._process, None, self.outcome
        if span is None:
            return
        if outcome is not None and span.is_recording():
            span.set_attribute("noetl.outcome", outcome.kind.value)
            span.set_attribute("noetl.settlement", outcome.settlement.value)
            error = self.failure if outcome.kind in _FINE else outcome.kind.value
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
        span.end()

    # ── what carries it on ──

    @property
    def headers(self) -> Mapping[str, str]:
        """Written once for each span: a command that is not recorded has one span for all of its requests."""
        span = self._stage or self._process
        if span is not self._written_of:
            self._written_of, self._written = span, _written(span.get_span_context()) if span is not None else {}
        return self._written

    @property
    def ids(self) -> tuple[str, str] | None:
        span = self._stage or self._process
        at = span.get_span_context() if span is not None else None
        return (format_trace_id(at.trace_id), format_span_id(at.span_id)) if at is not None else None


def _written(at: SpanContext) -> dict[str, str]:
    """As the SDK's propagator writes it, which looks for the span first: of an invalid one nothing."""
    if not at.is_valid:
        return {}
    headers = {"traceparent": f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"}
    if at.trace_state:
        headers["tracestate"] = at.trace_state.to_header()
    return headers


def _carrier(headers: Mapping[str, str] | None, notification: Envelope | None) -> dict[str, str]:
    """Header names have any case (nats-py keeps the sender's); a header wins over the body."""
    found: dict[str, str] = {}
    if notification is not None and notification.trace:
        found.update((name, value) for name, value in notification.trace.items() if isinstance(value, str))
    if headers:
        found.update((name.lower(), value) for name, value in headers.items())
    return found
