"""Kind `transfer` from an http source: tries, pages and tokens are those of kind `http`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.testing import HttpStub, ToolCall, call_tool, tool_context
from noetl_worker.tools.contract import Stop, ToolContext
from noetl_worker.tools.kinds.http.http import HttpConfig
from noetl_worker.tools.registry import Registry

from .transfers import in_duckdb, into


@pytest.fixture
def service() -> Iterator[HttpStub]:
    with HttpStub() as running:
        yield running


def moved(file: str, source: Any, **more: Any) -> ToolCall:
    called = call_tool("transfer", {"source": source, "target": into(file)}, **more)
    assert called.succeeded, called.message
    return called


def rows(file: str) -> list[tuple[Any, ...]]:
    return in_duckdb(file, "from t order by 1")


@pytest.mark.parametrize("plane", list(Dialect))
def test_answer_is_read_in_the_shape_of_either_plane(service: HttpStub, file: str, plane: Dialect) -> None:
    service.answer("GET /p", json={"items": [{"id": 1}]})
    moved(file, {"type": "http", "url": f"{service.url}/p", "data_path": "items"}, dialect=plane)
    assert rows(file) == [(1,)]


def test_pages_are_asked_for_with_what_the_answers_say(service: HttpStub, file: str) -> None:
    service.answer("GET /p", json={"items": [{"id": 1}], "next": "c2"}, times=1)
    service.answer("GET /p", json={"items": [{"id": 2}], "next": None}, times=1)
    pages = {
        "while": "{{ response.next }}",
        "next_call": {"params": {"cursor": "{{ response.next }}"}},
        "collect": {"path": "items"},
    }
    source = {"type": "http", "url": "{{ base }}/p", "params": {"n": 1}, "retry": {"on_success": pages}}
    moved(file, source, variables={"base": service.url})
    assert rows(file) == [(1,), (2,)]
    assert dict(service.requests[1].query) == {"n": "1", "cursor": "c2"}


def test_headers_may_have_a_token_and_variables(service: HttpStub, file: str) -> None:
    service.answer("GET /r", json=[{"id": 5}])
    headers = {"Authorization": "Bearer {{ token(alias) }}", "X-Note": "{{ note }}"}
    credentials = {"a": {"type": "bearer", "token": "the-token"}}
    moved(
        file,
        {"type": "http", "url": f"{service.url}/r", "headers": headers},
        credentials=credentials,
        variables={"alias": "a", "note": "{{ 1 + 1 }}"},
    )
    seen = service.requests[-1].headers
    assert (seen["authorization"], seen["x-note"]) == ("Bearer the-token", "{{ 1 + 1 }}")


def test_data_that_looks_like_a_template_stays(service: HttpStub, file: str) -> None:
    service.answer("POST /r", json=[{"id": 5}])
    variables = {"doc": {"a": "{{ 1 + 1 }}"}, "base": service.url}
    source = {"type": "http", "method": "POST", "url": "{{ base }}/r", "json": "{{ doc }}"}
    moved(file, source, variables=variables)
    moved(file, "{{ whole }}", variables={"whole": {**source, "url": f"{service.url}/r", "json": variables["doc"]}})
    assert [request.json for request in service.requests] == [{"a": "{{ 1 + 1 }}"}] * 2


def test_whole_source_of_a_variable(service: HttpStub, file: str) -> None:
    service.answer("GET /r", json=[{"id": 5}])
    whole = {"type": "http", "url": f"{service.url}/r", "headers": {"X-Note": "{{ 1 + 1 }}"}, "qeury": "x"}
    called = moved(file, "{{ whole }}", variables={"whole": whole})
    assert service.requests[-1].headers["x-note"] == "{{ 1 + 1 }}"
    assert ["unknown field 'qeury' is ignored" in str(entry) for entry in called.log].count(True) == 1


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("{{ 5 }}", ConfigurationError, "transfer: field 'source' must be an object, not int"),
        ({"type": "http", "url": "{{ nothing }}"}, ConfigurationError, "transfer: source: Source URL required"),
        ({"type": "http", "url": "{{ 1 + }}"}, TemplateError, "transfer: source: field 'url': "),
        (
            {"type": "{{ 'http' }}", "url": "ftp://h"},
            ConfigurationError,
            "http: url 'ftp://h' is no address",
        ),
        (
            {"type": "duckdb", "database": "{{ file }}", "query": "select 1"},
            ConfigurationError,
            "transfer: source and target are one DuckDB file",
        ),
    ],
)
def test_source_that_is_wrong_once_it_is_rendered(file: str, source: Any, kind: type, message: str) -> None:
    config = {"source": source, "target": into(file)}
    called = call_tool("transfer", config, variables={"file": file})
    assert isinstance(called.raised, kind)
    assert str(called.raised).startswith(message)


class _Meets:
    """An http tool whose answer is there at the moment of the stop."""

    kind: ClassVar[str] = "http"
    config_model: ClassVar[type] = HttpConfig
    raw_fields: ClassVar[frozenset[str]] = frozenset({"headers", "retry"})

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def run(self, config: HttpConfig, context: ToolContext) -> ToolResult:
        self.asked.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return ToolResult.success({"data": [{"id": 1}]})


async def test_a_stop_that_meets_the_answer_moves_no_rows(file: str) -> None:
    http, stop = _Meets(), Stop()
    registry = Registry([http], plugins=False)
    config = {"source": {"type": "http", "url": "http://127.0.0.1:1/"}, "target": into(file)}
    context = tool_context(registry=registry, stop=stop, timeout_s=60.0)
    call = asyncio.ensure_future(registry.run_tool("transfer", config, context))
    await http.asked.wait()
    stop.set("cancelled")
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert not Path(file).exists()
