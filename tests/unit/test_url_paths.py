"""A path of a request is made in one place, from segments that are escaped."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.transport.url_path import url_path
from unit.planes import answer, plane

PACKAGE = Path(__file__, "../../../python/noetl_worker").resolve()


def test_each_part_is_one_escaped_segment() -> None:
    assert url_path("api", "vars", 7, "a/b?c#d&e %é") == "/api/vars/7/a%2Fb%3Fc%23d%26e%20%25%C3%A9"
    assert url_path("x", ref="noetl://a&b=c d", scope=None, page=2) == "/x?ref=noetl%3A%2F%2Fa%26b%3Dc%20d&page=2"


@pytest.mark.parametrize("part", ["", ".", "..", "../credentials/other", "a/../b", "a/..", "./a", "a\\..\\b", "7/../8"])
def test_part_that_leads_elsewhere_is_refused(part: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a part of an address"):
        url_path("api", "keychain", part, "name")


@pytest.mark.parametrize("part", ["...", "a..b", ".hidden", "a/b", "x."])
def test_part_with_dots_of_its_own_stays(part: str) -> None:
    assert url_path(part) == f"/{part.replace('/', '%2F')}"


CALLS: list[Callable[[Plane, Any], Any]] = [
    lambda at, text: at.claim(text, "worker"),
    lambda at, text: at.fetch_command(text),
    lambda at, text: at.batch_state(text),
    lambda at, text: at.is_cancelled(text),
    lambda at, text: at.execution_status(text),
    lambda at, text: at.execution_detail(text),
    lambda at, text: at.list_events(text, event_type="batch.accepted", page_size=9),
    lambda at, text: at.get_var(1, text),
    lambda at, text: at.set_vars(text, {}),
    lambda at, text: at.store_result(text, "name", b"1", source_step="s"),
    lambda at, text: at.credential(text),
    lambda at, text: at.keychain(text, "name"),
    lambda at, text: at.keychain("9", text),
]


@pytest.mark.parametrize("call", CALLS)
async def test_plane_is_asked_for_nothing_outside_of_the_route(call: Callable[[Plane, Any], Any]) -> None:
    at, transport = plane(lambda *_: answer(200, {}))
    with pytest.raises(ConfigurationError):
        await call(at, "../credentials/other?include_data=true")
    assert transport.sent == []


def text_of(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def paths_by_hand(source: str) -> list[int]:
    """Lines where a value is put behind a `/` of a text that begins as a path does, or is escaped by hand."""
    found = []
    for node in ast.walk(ast.parse(source)):
        before: list[str] = []
        if isinstance(node, ast.JoinedStr):
            pairs = zip(node.values, node.values[1:], strict=False)
            before = [text_of(part) for part, value in pairs if isinstance(value, ast.FormattedValue)]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            before = [text_of(node.left)]
        elif isinstance(node, ast.Attribute) and node.attr in ("format", "join"):
            before = [text_of(node.value)]
        is_quote = isinstance(node, ast.ImportFrom) and any(one.name in ("quote", "urljoin") for one in node.names)
        if is_quote or any("/" in text.replace("://", "") and " " not in text for text in before):
            found.append(node.lineno)
    return found


NO_ADDRESSES = {
    "pipeline/command/trace.py": "what the id of a trace is made of",
    "text/secrets/forms.py": "what a secret looks like in addresses",
    "tools/docs/playbook_schema.py": "references within a schema",
    "tools/docs/schema.py": "references within a schema",
    "tools/python/python_command.py": "the files of a process",
    "tools/memory_context.py": "the name of a result that is kept in memory",
    "tools/kinds/secrets/secrets.py": "the name of a secret, whose parts `secret_address` escapes",
}


@pytest.mark.parametrize("package", ["remote/plane", "tools", "text/secrets", "pipeline/command"])
def test_every_path_of_a_request_is_made_of_segments(package: str) -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in (PACKAGE / package).rglob("*.py")}
    assert sources
    found = {name: paths_by_hand(source) for name, source in sources.items() if name not in NO_ADDRESSES}
    assert {name: lines for name, lines in found.items() if lines} == {}
