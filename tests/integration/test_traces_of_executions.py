"""The commands of an execution share a trace, whichever worker runs them, unless the notification names another."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest

from integration.house import House, house, noops
from noetl_worker.models import Dialect
from noetl_worker.models.notification import Envelope
from noetl_worker.pipeline.stages import Progress
from noetl_worker.settings.settings import load_settings

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler

from noetl_worker.pipeline.command.trace import DeliveryTraces

PLANE = "http://plane:8082"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def trace_of(*parts: object) -> str:
    """As docs/operate.md says: printf %s PLANE/EXECUTION | sha256sum | cut -c1-32."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


class Spans:
    """What one worker has exported."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))

    def traces(self, **variables: str) -> DeliveryTraces:
        return DeliveryTraces(self.provider, load_settings(variables), "client")

    def all(self) -> list[ReadableSpan]:
        return list(self._kept.get_finished_spans())

    def roots(self) -> list[ReadableSpan]:
        return [span for span in self.all() if span.parent is None]


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


async def work(home: House, workers: list[Spans], commands: int) -> int:
    """The execution that these workers have run the commands of."""
    for spans in workers:
        await home.start_worker(tracer_provider=spans.provider, WORKER_MAX_CONCURRENT="1")
    issued = await home.ran(*noops(commands))
    await home.close()
    (execution,) = {one.execution_id for one in issued}
    return execution


async def test_commands_of_an_execution_share_a_trace_over_all_workers_and_have_no_parent(dialect: Dialect) -> None:
    async with house(dialect, worker=False) as home:
        workers = [Spans(), Spans()]
        execution = await work(home, workers, 12)
        spans = [span for one in workers for span in one.all()]
        assert {trace_id(span) for span in spans} == {trace_of(home.plane.url, execution)}
        assert len([root for one in workers for root in one.roots()]) == 12
        assert {dict(span.attributes or {}).get("noetl.execution_id") for span in spans} == {str(execution)}


def begun(
    traces: DeliveryTraces, execution: int, *, step: str = "a", url: str = PLANE, header: str | None = None
) -> None:
    """One delivery, from its begin to its end."""
    notification = Envelope(execution, 1, 1, step, url, None, None)
    headers = {"traceparent": header} if header else None
    message: Any = SimpleNamespace(headers=headers, subject="s", message_id="m", data=b"", num_delivered=1)
    ends: list[Any] = []
    task: Any = SimpleNamespace(add_done_callback=ends.append)
    progress = Progress()
    progress.task = task
    traces.begin(progress, message, notification)
    ends[0](task)


def test_trace_of_the_notification_wins_and_the_execution_is_named_still() -> None:
    spans = Spans()
    traces = spans.traces()
    begun(traces, 7, header=PARENT)
    (span,) = spans.all()
    assert trace_id(span) == PARENT[3:35]
    assert dict(span.attributes or {})["noetl.execution_id"] == "7"


def test_notification_without_a_server_is_of_the_configured_plane() -> None:
    spans = Spans()
    traces = spans.traces(NOETL_SERVER_URL=PLANE + "/")
    begun(traces, 7, url="")
    begun(traces, 7, url=PLANE)
    assert [trace_id(span) for span in spans.all()] == [trace_of(PLANE, 7)] * 2


def test_workers_decide_alike_which_executions_are_sampled() -> None:
    kept: list[set[str]] = []
    for _ in range(2):
        spans = Spans(ParentBasedTraceIdRatio(0.5))
        traces = spans.traces()
        for execution in range(40):
            begun(traces, execution)
            begun(traces, execution)
        kept.append({trace_id(span) for span in spans.all()})
        assert len(spans.all()) == 2 * len(kept[-1]), "all commands of an execution, or none"
    assert kept[0] == kept[1]
    assert 0 < len(kept[0]) < 40


def test_long_execution_stays_in_its_one_trace_and_another_has_its_own() -> None:
    spans = Spans()
    traces = spans.traces()
    for number in range(1_100):
        begun(traces, 7, step=f"step_{number % 3}")
    assert {trace_id(span) for span in spans.all()} == {trace_of(PLANE, 7)}
    assert spans.roots() == spans.all()
    begun(traces, 8)
    assert trace_id(spans.all()[-1]) == trace_of(PLANE, 8)
