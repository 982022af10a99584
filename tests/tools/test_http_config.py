"""Kind `http`: configs that cannot be used, with exact messages; bodies of several parts; the traps of upstream."""

from __future__ import annotations

import base64
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.testing import run_tool

from .http_server import ToolServer

URL = {"url": "http://127.0.0.1/"}


NOT_ASCII = "the request to 'http://127.0.0.1/' cannot be built: 'ascii' codec can't encode character "


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"headers": {"X-É": "1"}}, NOT_ASCII + r"'\xc9' in position 2: ordinal not in range(128)"),
        ({"headers": {"X": "\u20ac"}}, NOT_ASCII + r"'\u20ac' in position 0: ordinal not in range(128)"),
        ({"files": {"a": "/no/such"}}, "files: 'a': '/no/such' cannot be read: No such file or directory"),
    ],
)
def test_request_that_cannot_be_built_says_why(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run_tool("http", {**URL, **config})
    assert str(caught.value) == f"http: {message}"


def test_header_with_a_line_break_is_refused(server: ToolServer) -> None:
    with pytest.raises(ConfigurationError, match=r"http: the request to .* cannot be sent: Illegal header value"):
        run_tool("http", {"url": server.url("/echo"), "headers": {"X": "a\r\nHost: other"}})
    assert server.requests == []


def test_template_of_a_header_is_named() -> None:
    with pytest.raises(TemplateError, match="http: field 'headers': X-Bad: "):
        run_tool("http", {**URL, "headers": {"X-Bad": "{{ 1 +"}})


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────


def parts_of(server: ToolServer) -> list[Message]:
    seen = server.requests[-1]
    head = f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + seen.body)
    assert message.is_multipart()
    return [part for part in message.get_payload() if isinstance(part, Message)]


def test_multipart_of_fields_and_files(server: ToolServer, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"a,b\n1,2\n")
    files = {
        "table": str(tmp_path / "table.csv"),
        "note": {"content": "hello", "filename": "note.txt", "content_type": "text/plain"},
        "raw": [{"content_b64": base64.b64encode(b"\x00\xff").decode()}, {"content": {"a": 1}}],
    }
    run_tool(
        "http", {"url": server.url("/echo"), "method": "POST", "form": {"kind": "x", "tags": [1, 2]}, "files": files}
    )
    told = [
        (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
        for part in parts_of(server)
    ]
    assert told == [
        ("kind", None, b"x"),
        ("tags", None, b"1"),
        ("tags", None, b"2"),
        ("table", "table.csv", b"a,b\n1,2\n"),
        ("note", "note.txt", b"hello"),
        ("raw", "raw", b"\x00\xff"),
        ("raw", "raw", b'{"a":1}'),
    ]
    assert parts_of(server)[4].get_content_type() == "text/plain"


def test_form_with_the_header_of_a_multipart_is_one(server: ToolServer) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    run_tool("http", {"url": server.url("/echo"), "method": "POST", "form": {"a": "b"}, "headers": headers})
    assert [part.get_payload(decode=True) for part in parts_of(server)] == [b"b"]


def test_file_is_sent_again_after_a_failure(server: ToolServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"whole")
    retry = {"max_attempts": 2, "initial_delay": 0.01, "jitter": False}
    config = {"url": server.url("/flaky"), "method": "PUT", "files": {"f": str(tmp_path / "file")}, "retry": retry}
    run_tool("http", config)
    assert [b"whole" in seen.body for seen in server.requests] == [True, True]


JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("fields", "body", "content_type"),
    [
        ({"json": {"a": 1}, "form": {"b": 1}}, b'{"a":1}', JSON),
        ({"json": False}, b"false", JSON),
        ({"json": [1, None]}, b"[1,null]", JSON),
        ({"form": {"b": 1, "c": None}, "body": "x"}, b"b=1", FORM),
        ({"body_b64": base64.b64encode(b"\x00\xff").decode()}, b"\x00\xff", None),
        ({"body": "raw"}, b"raw", None),
        ({"body": "\ud800"}, b"?", None),
        ({"body": {"a": [1]}}, b'{"a":[1]}', JSON),
        ({"body": {"a": 1}, "headers": {"content-type": "application/x+json"}}, b'{"a":1}', "application/x+json"),
        ({"body": {"a": 1, "b": [2, 3]}, "headers": {"Content-Type": FORM}}, b"a=1&b=2&b=3", FORM),
        ({"payload": {"a": 1}}, b'{"a":1}', JSON),
        ({"payload": "<a/>", "headers": {"Content-Type": "text/xml"}}, b"<a/>", "text/xml"),
        ({"data": {"a": 1}}, b'{"a":1}', JSON),
        ({"data": [1]}, b"[1]", JSON),
        ({"data": "text"}, b"text", None),
        ({"data": {"body": {"a": 1}, "query": {"q": 1}}}, b'{"a":1}', JSON),
        ({}, b"", None),
    ],
)  # fmt: skip
def test_body_comes_from_the_first_field_given(
    server: ToolServer, fields: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    run_tool("http", {"url": server.url("/echo"), "method": "POST", **fields})
    seen = server.requests[0]
    assert (seen.body, seen.headers.get("content-type")) == (body, content_type)


# ── what upstream got wrong in this kind ─────────────────────────────────────────────────


def test_trap_47_data_with_braces_is_no_template(server: ToolServer) -> None:
    variables = {"text": "{{ 1 + 1 }}"}
    config = {"url": server.url("/echo"), "headers": {"X": "{{ text }}"}, "json": "{{ text }}", "method": "POST"}
    result = run_tool("http", config, variables=variables)
    assert result.data["data"]["headers"]["x"] == "{{ 1 + 1 }}"
    assert result.data["data"]["body"] == '"{{ 1 + 1 }}"'
