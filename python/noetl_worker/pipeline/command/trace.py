"""The trace of one delivery: a `process` span, with a child span for each stage that `_SPANS` names.

The child spans are `claiming`, `running KIND`, `deciding`, `reporting` and `answering`. Names and attributes follow
OpenTelemetry's messaging conventions. The trace continues the notification's `traceparent` (a header, or a field of
`trace` in the body). Without a `traceparent`, the commands of an execution share a trace, because every worker derives
the same trace id from plane and execution. Such a trace has no common parent span, because no process runs the whole
execution.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from noetl_worker import __version__
from noetl_worker.models.disposition import DispositionKind
from noetl_worker.models.notification import Envelope
from noetl_worker.observability.tracing import CURRENT
from noetl_worker.pipeline.stages import Progress, Stage
from noetl_worker.settings.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from noetl_worker.remote.jetstream.delivery import Delivery

_W3C: Final = TraceContextTextMapPropagator()
_NO_PARENT: Final = otel_context.Context()
_NO_HEADERS: Final[Mapping[str, str]] = {}
_SPANS: Final = {
    Stage.CLAIMING: "claiming",
    Stage.RUNNING: "running",
    Stage.DECIDING: "deciding",
    Stage.REPORTING: "reporting",
    Stage.ANSWERING: "answering",
}
_FINE: Final = frozenset({DispositionKind.REPORTED, DispositionKind.FINISHED_BEFORE, DispositionKind.FINISHED_HERE})


class ExecutionTraceIds(RandomIdGenerator):
    """Generator of trace ids for traces without a parent. All workers give the commands of one execution the same trace
    id. So a sampler that decides by the trace id makes the same decision in every worker."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self.notification: Envelope | None = None
        """The notification whose trace begins next. None: the message cannot be read, and its trace id is random."""

    def generate_trace_id(self) -> int:
        notification = self.notification
        if notification is None:
            return super().generate_trace_id()
        text = f"{(notification.server_url or self._server_url).rstrip('/')}/{notification.execution_id}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16], "big")


class DeliveryTraces:
    """Factory of OpenTelemetry traces, one for each delivery of a worker."""

    def __init__(self, provider: TracerProvider, settings: Settings, client_id: str) -> None:
        self._trace_ids = provider.id_generator = ExecutionTraceIds(settings.server_url)
        self._tracer = provider.get_tracer("noetl_worker", __version__)
        self._name = f"process {settings.nats_subject}"
        self._common = {
            "messaging.system": "nats",
            "messaging.destination.template": settings.nats_subject,  # the same for all commands, as in the span's name
            "messaging.destination.subscription.name": settings.nats_consumer,
            "messaging.consumer.group.name": settings.nats_consumer,
            "messaging.client.id": client_id,
        }

    def begin(self, progress: Progress, delivery: Delivery, notification: Envelope | None) -> None:
        """Begin the trace of a delivery. Call this method in the asyncio task of the delivery. All code in that task
        and in the tool's task then belongs to the trace.

        Args:
            notification: None if the message cannot be read.
        """
        parent = _NO_PARENT
        if delivery.headers or (notification is not None and notification.trace):
            parent = _W3C.extract(_carrier(delivery.headers, notification))
        self._trace_ids.notification = notification  # `start_span` reads it if there is no parent
        span: Span = self._tracer.start_span(self._name, parent, SpanKind.CONSUMER)
        traced: _Recorded | _Unrecorded
        if span.is_recording():
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
            stage_attributes: dict[str, str] = {}
            if notification is not None:
                stage_attributes = {"noetl.execution_id": str(notification.execution_id)}
                span.set_attributes(
                    {
                        **stage_attributes,
                        "messaging.message.conversation_id": stage_attributes["noetl.execution_id"],
                        "noetl.command_id": str(notification.command_id),
                        "noetl.step": notification.step,
                    }
                )
            progress.listener = traced = _Recorded(self._tracer, span, progress, self._common, stage_attributes)
        else:
            traced = _Unrecorded(span.get_span_context())
        CURRENT.set(traced)
        otel_context.attach(set_span_in_context(span, parent))
        task = progress.task or asyncio.current_task()
        assert task is not None
        task.add_done_callback(traced.end)


class _Unrecorded:
    """A trace that the sampler does not record. Only its ids are passed on, in headers and log lines."""

    __slots__ = ("_at", "headers")

    def __init__(self, at: SpanContext) -> None:
        self._at: SpanContext | None = at
        self.headers: Mapping[str, str] = _written(at)

    @property
    def ids(self) -> tuple[str, str] | None:
        return _ids(self._at)

    def end(self, _task: asyncio.Task[Any]) -> None:
        self._at, self.headers = None, _NO_HEADERS


@dataclass(slots=True, eq=False, repr=False)
class _Recorded:
    """The recorded spans of a delivery: the delivery's span, with a child span for each stage named in `_SPANS`."""

    tracer: Tracer
    process: Span | None
    progress: Progress | None
    common: Mapping[str, str]
    stage_attributes: Mapping[str, str]
    """Attributes that the span of every stage gets, in addition to the stage's own attributes."""
    stage: Span | None = field(default=None, init=False)
    is_tool_stage: bool = field(default=False, init=False)

    def enter(self, stage: Stage) -> None:
        self._end_stage()
        name = _SPANS.get(stage)
        if name is None or self.process is None or self.progress is None:
            return
        parent, kind = set_span_in_context(self.process), SpanKind.INTERNAL
        attributes: dict[str, str | int] = {**self.stage_attributes}
        command = self.progress.command
        self.is_tool_stage = stage is Stage.RUNNING
        if stage is Stage.RUNNING and command is not None:
            name = f"{name} {command.kind}"
            attributes |= {"noetl.tool_kind": command.kind, "noetl.attempt": command.attempt}
        elif stage is Stage.ANSWERING:
            kind = SpanKind.CLIENT
            attributes |= {**self.common, "messaging.operation.name": "ack", "messaging.operation.type": "settle"}
        self.stage = self.tracer.start_span(name, parent, kind, attributes)
        otel_context.attach(set_span_in_context(self.stage, parent))

    def _end_stage(self) -> None:
        stage, self.stage = self.stage, None
        if stage is not None:
            failure = self.progress.failure if self.progress is not None else None
            if failure is not None and self.is_tool_stage:
                stage.set_attribute("error.type", failure)
                stage.set_status(Status(StatusCode.ERROR, failure))
            stage.end()

    def end(self, _task: asyncio.Task[Any]) -> None:
        """End and forget the spans after the answer to JetStream. So a timer that the tool started and that still runs,
        such as a connection pool's timer, adds nothing to the ended trace."""
        self._end_stage()
        span, self.process = self.process, None
        progress, self.progress = self.progress, None  # ends a reference cycle: `progress` refers to this trace
        if span is None or progress is None:
            return
        progress.listener = None
        if progress.disposition is not None:
            kind = progress.disposition.kind
            span.set_attribute("noetl.disposition", kind.value)
            span.set_attribute("noetl.answer", progress.disposition.answer.value)
            error = progress.failure if kind in _FINE else kind.value
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
        span.end()

    @property
    def headers(self) -> Mapping[str, str]:
        span = self.stage or self.process
        return _written(span.get_span_context()) if span is not None else _NO_HEADERS

    @property
    def ids(self) -> tuple[str, str] | None:
        is_acked = self.progress is not None and self.progress.stage is Stage.ANSWERING
        span = (None if is_acked else self.stage) or self.process  # the last log lines are about the whole delivery
        return _ids(span.get_span_context()) if span is not None else None


def _ids(at: SpanContext | None) -> tuple[str, str] | None:
    return (format_trace_id(at.trace_id), format_span_id(at.span_id)) if at is not None else None


def _written(at: SpanContext) -> dict[str, str]:
    """Return the trace headers of a span, as the SDK's propagator would write them. An invalid span has no headers."""
    if not at.is_valid:
        return {}
    headers = {"traceparent": f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"}
    state = at.trace_state
    if state is not DEFAULT_TRACE_STATE and state:  # nearly every state is the default, and `is not` is cheap
        headers["tracestate"] = state.to_header()
    return headers


def _carrier(headers: Mapping[str, str] | None, notification: Envelope | None) -> dict[str, str]:
    """Return the fields in which the propagator looks for the parent span: the notification's trace fields and the
    message's headers. The names of headers are put into lower case, because nats-py keeps the sender's case. If a
    header and a trace field have the same name, the header counts."""
    found: dict[str, str] = {}
    if notification is not None and notification.trace:
        found.update((name, value) for name, value in notification.trace.items() if isinstance(value, str))
    if headers:
        found.update((name.lower(), value) for name, value in headers.items())
    return found
