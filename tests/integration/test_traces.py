"""One trace for each command, from whoever published its notification to the answer that JetStream gets."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import gzip
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import structlog
from starlette.requests import Request

from integration.house import House, house
from integration.processes import worker_process
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import SettingsError
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.observability.tracing import CURRENT, add_trace_ids, make_provider, trace_headers
from noetl_worker.pipeline.stages import Progress, Stage
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import HttpStub
from noetl_worker.tools.contract import ToolContext

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from noetl_worker.pipeline.command.trace import DeliveryTraces

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


class Traced:
    """A house whose worker keeps its spans in memory."""

    def __init__(self, home: House, sampler: Sampler | None = None) -> None:
        self.home, self.spans = home, InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))

    async def one(self, command: RawCommand, *, header: str | None = None, body: str | None = None) -> None:
        """Run one command, whose notification has this `traceparent`."""
        (issued,) = await self.home.plane.create_commands([command], publish=False)
        notification = self.home.notification(issued, **({"trace": {"traceparent": body}} if body else {}))
        headers = {"traceparent": header} if header else None
        await self.home.publish(json.dumps(notification).encode(), headers=headers)
        await self.home.wait_terminal(issued.event_id)
        await self.home.wait_settled()

    async def named(self) -> dict[str, ReadableSpan]:
        """The spans by their names, once the worker has ended."""
        await self.home.close()
        return {span.name: span for span in self.spans.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str | None]:
    """Its trace, and the span above it."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}" if span.parent else None


def span_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def header_of(span: ReadableSpan) -> str:
    """Of what is below it, without the flags."""
    return f"00-{ids(span)[0]}-{span_id(span)}-"


@asynccontextmanager
async def traced_house(dialect: Dialect = Dialect.PYTHON, sampler: Sampler | None = None) -> AsyncIterator[Traced]:
    async with house(dialect, worker=False) as home:
        traced = Traced(home, sampler)
        await home.start_worker(tracer_provider=traced.provider)
        yield traced


class Results:
    """What the plane is told of results, as one text."""

    def __init__(self, home: House) -> None:
        self.text = ""
        home.plane.log.listen(self._note)

    def _note(self, event: LoggedEvent) -> None:
        self.text += json.dumps([event.result, event.response])


class PlaneRequests:
    """The `traceparent` of each request that the plane is sent, as they come in."""

    def __init__(self, home: House) -> None:
        self._seen: list[tuple[str, str | None]] = []
        self.types: set[str | None] = set()
        home.plane.fault = self._note

    def _note(self, request: Request) -> None:
        self._seen.append((request.url.path, request.headers.get("traceparent")))
        self.types |= {request.headers.get("content-type")} if request.method == "POST" else set()

    def spans(self, what: str) -> set[str | None]:
        """Of requests whose path has this part, but questions about a batch, which are of no command."""
        return {one for path, one in self._seen if what in path.split("/") and not path.endswith("/status")}


@pytest.mark.parametrize("carried", ["header", "body"])
async def test_trace_goes_from_the_notification_to_the_ack(dialect: Dialect, carried: str) -> None:
    async with traced_house(dialect) as traced:
        requests = PlaneRequests(traced.home)
        await traced.one(RawCommand("noop", {"task": "n"}), **{carried: PARENT})  # type: ignore[arg-type]
        spans = await traced.named()
        assert requests.spans("claim") == {f"{header_of(spans['claiming'])}01"}
        assert requests.spans("events") == {f"{header_of(spans['reporting'])}01"}
        assert requests.types == {"application/json"}
        assert set(spans) == {
            "process noetl.commands",
            "claiming",
            "running noop",
            "deciding",
            "reporting",
            "answering",
        }
        process = spans.pop("process noetl.commands")
        assert ids(process) == (TRACE_ID, "b7ad6b7169203331")
        assert process.kind is SpanKind.CONSUMER
        assert {ids(span) for span in spans.values()} == {(TRACE_ID, span_id(process))}
        wanted = {
            "messaging.system": "nats",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "noetl.commands",
            "messaging.consumer.group.name": "noetl_worker",
            "noetl.disposition": "reported",
            "noetl.answer": "ack",
            "noetl.step": "start",
        }
        attributes = dict(process.attributes or {})
        assert {name: attributes.get(name) for name in wanted} == wanted
        assert attributes["messaging.message.id"]
        assert dict(spans["running noop"].attributes or {})["noetl.tool_kind"] == "noop"
        ack = dict(spans["answering"].attributes or {})
        assert (ack["messaging.operation.name"], ack["messaging.operation.type"]) == ("ack", "settle")


async def test_trace_goes_on_into_tools() -> None:
    code = "import os\nresult = os.environ.get('TRACEPARENT')"
    with HttpStub() as stub:
        stub.answer("GET /", json={})
        async with traced_house() as traced:
            results = Results(traced.home)
            await traced.one(RawCommand("http", {"url": stub.url + "/"}))
            await traced.one(RawCommand("python", {"code": code}))
            await traced.one(RawCommand("shell", {"command": 'printf %s "$TRACEPARENT"'}))
            spans = await traced.named()
            (request,) = stub.requests
    tools = {name: span for name, span in spans.items() if name.startswith("running")}
    assert request.headers["traceparent"].startswith(header_of(tools["running http"]))
    for kind in ("python", "shell"):
        assert header_of(tools[f"running {kind}"]) in results.text


async def test_command_that_is_traced_is_seen_in_flight_with_its_ids() -> None:
    """A trace stands in the place of the progress that `top` and `why` read."""
    seen: list[dict[str, Any]] = []
    async with traced_house() as traced:
        view = traced.home.workers[0].health.in_flight
        traced.home.plane.log.listen(lambda event: seen.extend(view()["commands"]))
        await traced.one(RawCommand("noop"))
    reporting = {one["stage"]: one for one in seen}["reporting"]
    assert (reporting["kind"], reporting["step"], reporting["deliveries"]) == ("noop", "start", 1)
    assert int(reporting["command_id"])


@dataclass(frozen=True, slots=True)
class Nothing:
    """No fields."""


class Leaves:
    """A tool that leaves a context behind, as a task does that it begins."""

    kind: ClassVar[str] = "leaves"
    config_model: ClassVar[type] = Nothing

    def __init__(self, left: list[contextvars.Context]) -> None:
        self._left = left

    async def run(self, config: Nothing, context: ToolContext) -> ToolResult:
        self._left.append(contextvars.copy_context())
        return ToolResult.success(dict(context.worker.trace_headers()))


async def test_what_a_command_leaves_running_is_in_no_trace_once_it_has_ended() -> None:
    """A task that it began (the timer of a pool) has its context for as long as it lives."""
    left: list[contextvars.Context] = []
    async with traced_house() as traced:
        traced.home.workers[0].registry.register(Leaves(left))
        await traced.one(RawCommand("leaves", {}))
    (context,) = left
    assert context[CURRENT] is not None
    assert context.run(trace_headers) == {}
    assert context.run(add_trace_ids, None, "info", {"event": "x"}) == {"event": "x"}


async def test_failed_tool_is_an_error_of_its_span_with_its_kind_alone() -> None:
    async with traced_house() as traced:
        await traced.one(RawCommand("shell", {"command": "echo secret-text >&2; exit 3"}))
        spans = await traced.named()
        for span in (spans["running shell"], spans["process noetl.commands"]):
            assert span.status.status_code is StatusCode.ERROR
            assert dict(span.attributes or {})["error.type"] == span.status.description
            assert "secret-text" not in span.to_json()


class CountedSampler(Sampler):
    """Records nothing, and counts the spans that are made: the SDK asks it for each."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *more: Any, **named: Any) -> SamplingResult:
        self.asked.append(name)
        return ALWAYS_OFF.should_sample(parent_context, trace_id, name)

    def get_description(self) -> str:
        return "counted"


async def test_command_that_is_sampled_out_has_one_span_and_none_below_it() -> None:
    sampler = CountedSampler()
    async with traced_house(sampler=sampler) as traced:
        await traced.one(RawCommand("noop"), header=PARENT)
    assert sampler.asked == ["process noetl.commands"]


async def test_command_that_is_sampled_out_has_no_spans_and_carries_its_trace_on() -> None:
    async with traced_house(sampler=ParentBased(ALWAYS_OFF)) as traced:
        results = Results(traced.home)
        await traced.one(RawCommand("shell", {"command": 'printf %s "$TRACEPARENT"'}), header=PARENT[:-1] + "0")
        assert await traced.named() == {}
        assert f"00-{TRACE_ID}-" in results.text


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ALWAYS_ON], ids=["sampled out", "recorded"])
async def test_traced_command_that_is_over_leaves_nothing_to_the_collector(sampler: Sampler) -> None:
    """The context of its task has the trace, so the trace must not keep the task."""
    message: Any = SimpleNamespace(headers=None, subject="s", message_id="m", data=b"", num_delivered=1)
    traces = DeliveryTraces(TracerProvider(sampler=sampler, shutdown_on_exit=False), load_settings({}), "client")

    async def handled(progress: Progress) -> None:
        traces.begin(progress, message, None)
        for stage in Stage:
            progress.enter(stage)

    async def run() -> None:
        progress = Progress()
        progress.task = task = asyncio.ensure_future(handled(progress))
        await task

    await run()  # what is made once
    await asyncio.sleep(0)
    gc.collect()
    gc.disable()
    try:
        await run()
        await asyncio.sleep(0)
        assert gc.collect() == 0
    finally:
        gc.enable()


EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@pytest.mark.parametrize("module", ["opentelemetry.sdk.trace.export", EXPORTER])
def test_package_that_is_missing_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT.*pip install noetl-worker\[otel\]"):
        make_provider({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, worker_id="w")


async def test_process_with_an_endpoint_exports_its_spans_and_logs_their_ids(tmp_path: Path) -> None:
    """The ids of a failed command's line are those of a span that the collector gets, at the latest at the end."""
    pytest.importorskip(EXPORTER, reason="the extra otel is not installed")
    with HttpStub() as collector:
        collector.answer("POST /v1/traces")
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        async with house(worker=False) as home, worker_process(home, tmp_path, **otel) as worker:
            await home.ran(RawCommand("shell", {"command": "exit 3"}), RawCommand("noop"))
            assert await worker.stop() == 0
        [export] = collector.requests
    assert (export.method, export.path) == ("POST", "/v1/traces")
    sent = gzip.decompress(export.body) if export.headers.get("content-encoding") == "gzip" else export.body
    [line] = worker.logged("command_failed")
    assert bytes.fromhex(line["trace_id"]) in sent
    assert bytes.fromhex(line["span_id"]) in sent
    [outcome] = [one for one in worker.logged("command_finished") if one["kind"] == "noop"]
    assert sent.count(bytes.fromhex(outcome["span_id"])) > 1, "of `process`, which others name as their parent"


def test_no_trace_and_no_import_without_an_endpoint() -> None:
    line: Any = {"event": "x"}
    offs: tuple[dict[str, str], ...] = ({}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    assert [make_provider(off, worker_id="w") for off in offs] == [None, None]
    assert add_trace_ids(structlog.get_logger(), "info", line) == {"event": "x"}


def test_exporter_that_is_not_offered_stops_the_start_with_what_is() -> None:
    with pytest.raises(SettingsError, match=r"OTEL_TRACES_EXPORTER.*zipkin.*otlp or none"):
        make_provider({"OTEL_TRACES_EXPORTER": "zipkin"}, worker_id="w")
