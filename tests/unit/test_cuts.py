"""A foreign text that is cut on its way out: redacted first, since half of a secret is not known any more."""

from __future__ import annotations

import base64
import contextvars
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.aio.msg import Msg

from noetl_worker.errors import ConfigurationError, ControlPlaneError, ServerRefused, TemplateError, ToolError
from noetl_worker.models import Report, SecretTexts
from noetl_worker.pipeline.report import results
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.plane.client import refusal
from noetl_worker.remote.transport.transport import Response
from noetl_worker.testing import MemoryControlPlane, call_tool, run_tool
from noetl_worker.text.secrets import redaction
from noetl_worker.text.templates import template
from noetl_worker.tools import fields, policy
from noetl_worker.tools.http import answer as http_answer
from noetl_worker.tools.kinds.artifact import artifact
from noetl_worker.tools.kinds.container import cluster as container_cluster
from noetl_worker.tools.kinds.http.http import HttpTool
from noetl_worker.tools.kinds.mcp.mcp import McpTool
from noetl_worker.tools.kinds.result_fetch import result_fetch
from noetl_worker.tools.kinds.subscription import subscription
from noetl_worker.tools.python.python_runner import PythonRunner
from unit.planes import plane

SECRET = "Zq7-hunterSecret/99"
FORMS = (SECRET, SECRET.replace("/", "%2F"))


def here(act: Callable[[], Any]) -> Any:
    """What `act` gives inside of a command that knows the secret."""

    def known() -> Any:
        redaction.remember(lambda: SecretTexts(FORMS))
        return act()

    return contextvars.copy_context().run(known)


def across(chars: int, *, text: str = SECRET) -> str:
    """A text with the secret right where a cut after `chars` goes through."""
    return "x" * (chars - len(text) // 2) + text + " and more" * 50


def said(act: Callable[[], Any], *kinds: type[Exception]) -> str:
    with pytest.raises(kinds or (Exception,)) as caught:
        act()
    return str(caught.value)


def answer(body: str, status: int = 500) -> Response:
    return Response(status, {}, body.encode())


def mcp_says(body: str) -> str:
    tool = McpTool(httpx.MockTransport(lambda _: httpx.Response(500, text=body)))
    return said(lambda: run_tool(tool, {"endpoint": "http://h/", "tool": "t"}), ToolError)


def mcp_tool_fails(text: str) -> str:
    def serve(request: httpx.Request) -> httpx.Response:
        message = json.loads(request.content)
        if "id" not in message:
            return httpx.Response(202)
        failed = {"isError": True, "content": [{"type": "text", "text": text}]}
        result = failed if message["method"] == "tools/call" else {}
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": message["id"], "result": result})

    error = run_tool(McpTool(httpx.MockTransport(serve)), {"endpoint": "http://h/", "tool": "t"}).error
    assert error is not None
    return error.message


def no_token(reason: str) -> str:
    refusing = HttpTool(httpx.MockTransport(lambda _: httpx.Response(400, json={"error": reason})))
    auth = {"type": "oauth2_client_credentials", "token_url": "http://h/", "client_id": "i", "client_secret": "s"}
    return said(lambda: run_tool(refusing, {"url": "http://h/", "auth": auth}), ToolError)


def condition_fails(condition: str) -> str:
    tool = HttpTool(httpx.MockTransport(lambda _: httpx.Response(200)))
    log = call_tool(tool, {"url": "http://h/", "retry": {"retry_when": condition}}).log
    return next(str(fields) for _, event, fields in log if event == "http_retry_condition")


@dataclass(frozen=True, slots=True)
class OneField:
    f: str


def child_says(body: str) -> str:
    class Refusing(MemoryControlPlane):
        async def execute_playbook(self, body_: Any) -> Any:
            raise ServerRefused("no", status=422, body=body)

    return said(lambda: run_tool("playbook", {"path": "p"}, control_plane=Refusing()), ToolError)


def moved_as_a_number(text: str) -> str:
    duckdb = pytest.importorskip("duckdb")
    with tempfile.TemporaryDirectory() as directory:
        database = str(Path(directory) / "a.duckdb")
        with duckdb.connect(database) as connection:
            connection.execute("create table t (n bigint)")
        source = {"type": "duckdb", "query": f"select '{text}' as n"}
        target = {"type": "duckdb", "database": database, "table": "t"}
        return said(lambda: run_tool("transfer", {"source": source, "target": target}), ToolError)


PLACE = policy.ConfigPlace("http", "retry", "retry")
CUTS: dict[str, Callable[[], str]] = {
    "an answer's body kept in the error": lambda: refusal("POST /x", answer(across(2000))).body,
    "an answer's excerpt": lambda: str(refusal("POST /x", answer(across(500)))),
    "a refused outcome": lambda: str(
        results.refused_report(Report(status="s", context={}), ServerRefused("no", status=422, body=across(500))).error
    ),
    "a template": lambda: said(lambda: template.render("{{ nope.a }}" + across(147), {}, strict=True), TemplateError),
    "an excerpt of bytes": lambda: redaction.excerpt(across(100).encode(), 100),
    "an MCP server's answer": lambda: mcp_says(across(300)),
    "an MCP tool's error": lambda: mcp_tool_fails(across(500)),
    "an MCP address": lambda: said(
        lambda: run_tool("mcp", {"server": "s", "method": "tools/list", "endpoint": across(160)}), ConfigurationError
    ),
    "a child playbook's refusal": lambda: child_says(across(500)),
    "a token's refusal": lambda: no_token(across(200)),
    "an address": lambda: said(lambda: run_tool("http", {"url": "http://h:x/" + across(189)})),
    "a condition": lambda: condition_fails("{{ 1 // 0 }}" + across(148)),
    "an ack id": lambda: said(lambda: subscription.SubscriptionConfig("nats", operation="ack", ack_ids=[across(80)])),
    "a value": lambda: moved_as_a_number(across(80)),
    "a reference": lambda: said(lambda: result_fetch.parse_reference(across(160))),
    "an artifact's address": lambda: said(lambda: artifact.ArtifactConfig(uri="s:" + across(158))),
    "a condition of a policy": lambda: said(lambda: policy.parse_condition(PLACE, "when", across(80))),
    "a field that is null": lambda: said(lambda: fields.decode("k", OneField, {"f": None}, {"f": across(160)})),
}


@pytest.mark.parametrize("cut", CUTS)
def test_half_of_a_secret_is_not_shown(cut: str) -> None:
    shown = here(CUTS[cut])
    assert "xxx" in shown
    assert "Zq7" not in shown, shown


def test_half_of_what_has_the_shape_of_a_credential_is_not_shown() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9." + "a" * 40 + "." + "b" * 40
    assert "eyJ" not in redaction.excerpt(across(100, text=" " + token), 100)


@pytest.mark.parametrize("form", [str, str.encode], ids=["text", "bytes"])
def test_half_at_the_end_of_what_is_read_for_an_excerpt_is_not_shown(form: Callable[[str], str | bytes]) -> None:
    """What is read of it is shorter than the excerpt once it is redacted."""
    secret, before = "Zq7" + "k9X" * 33, "é" * 50
    redaction.remember(lambda: SecretTexts((secret,)))
    lines = "[REDACTED]\n" * 89
    assert redaction.excerpt(form(before + f"{secret}\n" * 92), 1_100) == before + lines + "[REDACTED]"


async def test_answer_that_is_no_object() -> None:
    there, _ = plane(lambda *_: answer(f'"{across(498)}"', 200))
    redaction.remember(lambda: SecretTexts(FORMS))
    with pytest.raises(ControlPlaneError) as caught:
        await there.credential("alias")
    assert "xxx" in str(caught.value)
    assert "Zq7" not in str(caught.value)


async def test_reason_of_a_message_that_is_given_up() -> None:
    sent: list[bytes] = []

    class Client:
        async def request(self, _subject: str, body: bytes, timeout: float) -> None:
            sent.append(body)

    client: Any = Client()
    reply = "$JS.ACK.stream.consumer.1.2.2.1790000022953000000.0"
    delivery = Delivery(client, Msg(_client=client, reply=reply), 0.0, wall_offset_s=0.0)
    redaction.remember(lambda: SecretTexts(FORMS))
    await delivery.term(across(200))
    assert sent[0].startswith(b"+TERM xxx")
    assert b"Zq7" not in sent[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [4, 9, 17])
def test_piece_of_a_secret_beside_a_cut_is_taken_out(form: str, kept: int) -> None:
    half = form.encode()
    assert here(lambda: redaction.drop_half_at_end(b"line\n" + half[:kept])) == b"line\n[REDACTED]"
    assert here(lambda: redaction.drop_half_at_start(half[-kept:] + b"\nline")) == b"[REDACTED]\nline"


@pytest.mark.parametrize("data", [b"", b"x", b"some output\n", b"Zq7", b"Zq7-other", b"x" * 100 + SECRET.encode()])
def test_what_is_no_piece_of_a_secret_stays(data: bytes) -> None:
    assert here(lambda: redaction.drop_half_at_end(data)) == data
    assert here(lambda: redaction.drop_half_at_start(data[::-1])) == data[::-1]
    assert redaction.drop_half_at_end(data) == data


def test_longest_piece_is_the_one_that_goes() -> None:
    def act() -> bytes:
        redaction.remember(lambda: SecretTexts(("abababcd", "ababab12345", "abab", "é" * 6)))
        return redaction.drop_half_at_end(b"x ababab") + redaction.drop_half_at_end("é é".encode() * 1 + b"\xc3")

    assert here(act) == "x [REDACTED]é é".encode() + b"\xc3"


async def test_output_of_a_program_is_cut_without_halves() -> None:
    """The first half ends, and the second begins, inside of the secret."""
    code = f"import sys; sys.stdout.write('x' * 40 + '{SECRET}' + 'y' * 100 + '{SECRET}' + 'z' * 40)"
    redaction.remember(lambda: SecretTexts(FORMS))
    runner, argv = PythonRunner(), [sys.executable, "-c", code]
    shown = await runner.run_program(sys.executable, argv, env={}, cwd="/", max_output_bytes=100)
    await runner.aclose()
    assert shown.stdout == "x" * 40 + "[REDACTED]\n[... 118 bytes left out ...]\n[REDACTED]" + "z" * 40


@pytest.mark.parametrize("response_type", ["text", "binary"])
async def test_answer_is_cut_without_half(response_type: str) -> None:
    content = http_answer.Content(60)
    for at in range(0, 100, 7):  # the secret is in several pieces
        content.add(across(55)[at : at + 7].encode())
    response = httpx.Response(200, request=httpx.Request("GET", "http://h/"))
    redaction.remember(lambda: SecretTexts(FORMS))
    made: Any = (await http_answer.answer_result(response, content, response_type, 0.1)).data
    if response_type == "binary":
        whole = base64.b64decode(made["body"]["base64"])
        assert whole == b"x" * 46 + b"[REDACTED]"
    else:
        assert made["body"] == "x" * 46 + "[REDACTED]\n[... cut after 60 bytes ...]"


def test_answer_that_is_read_as_text_is_cut_without_half() -> None:
    whole, cut = http_answer.Content(600), http_answer.Content(60)
    for content in (whole, cut):
        content.add(across(55).encode())
    assert here(whole.text) == across(55)
    assert here(cut.text) == "x" * 46 + "[REDACTED]"


async def test_log_of_a_container_is_cut_without_half() -> None:
    class Cut(container_cluster.Cluster):
        def __init__(self) -> None:
            self._pods = "/pods"

        async def _send(self, *_: Any) -> bytes:
            return across(60)[:60].encode()

    redaction.remember(lambda: SecretTexts(FORMS))
    shown = await Cut().log("pod", "main", 60)
    assert shown == "x" * 51 + "[REDACTED]"
