"""The rhai tool: both dialects, limits, cancellation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import Dialect, SecretTexts, ToolResult, ToolStatus
from noetl_worker.testing import tool_context
from noetl_worker.text.secrets import redaction
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.rhai.rhai import RhaiConfig, RhaiTool
from tools.http_server import Answer, Seen, ToolServer, as_json

pytestmark = pytest.mark.rust
RUNNING: list[RhaiTool] = []


def context(timeout_s: float | None = 30.0, dialect: Dialect = Dialect.RUST, **variables: Any) -> ToolContext:
    made = tool_context(dialect=dialect, execution_id=7, step="s1", server_url="http://srv", timeout_s=timeout_s)
    made.values.variables = variables
    return made


async def run(
    code: str, args: Mapping[str, Any] | None = None, timeout_s: float | None = 30.0, **variables: Any
) -> ToolResult:
    return await run_in(context(timeout_s, **variables), RhaiConfig(code=code, input=args or {}))


async def run_in(given: ToolContext, config: RhaiConfig) -> ToolResult:
    [tool] = RUNNING
    return await tool.run(config, given)


@pytest.fixture(scope="module", autouse=True)
async def native(anyio_backend: Any) -> AsyncIterator[None]:
    core = pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    assert "rhai" in core.FEATURES
    RUNNING.append(RhaiTool())
    yield
    await RUNNING.pop().aclose()


def echo(seen: Seen) -> Answer:
    auth = seen.headers.get("authorization")
    return as_json({"method": seen.method, "path": seen.path, "auth": auth, "body": seen.body.decode()})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ToolServer() as http:
        text = Answer(body=b"plain text, no JSON")
        http.routes |= {"/x": echo, "/missing": lambda seen: as_json({}, 404), "/text": lambda seen: text}
        yield http.url("")


async def test_value_of_the_last_expression_is_the_data() -> None:
    result = await run("let x = 40; #{sum: x + 2, half: 0.5, none: (), list: [1, \"a\", 'c', true]}")
    assert result.data == {"sum": 42, "half": 0.5, "none": None, "list": [1, "a", "c", True]}
    assert result.status is ToolStatus.SUCCESS


async def test_arguments_are_a_map_and_variables_and_keep_their_types() -> None:
    code = "#{n: args.n + n, t: args.t, nested: args.m.k, w: workload.region, v: vars.other, id: execution_id, s: step}"
    result = await run(code, {"n": 5, "t": "x", "m": {"k": [1]}}, other=1.5, workload={"region": "eu"})
    assert result.data == {"n": 10, "t": "x", "nested": [1], "w": "eu", "v": 1.5, "id": 7, "s": "s1"}


@pytest.mark.parametrize(
    ("of_a_task", "dialect", "who"),
    [({}, Dialect.RUST, "workload"), ({}, Dialect.PYTHON, "argument"), ({"_task": "a"}, Dialect.RUST, "argument")],
)
async def test_variable_of_the_command_hides_an_argument_on_the_rust_plane(
    of_a_task: dict[str, Any], dialect: Dialect, who: str
) -> None:
    """Seen live (rhai-same-name): in a list of tasks the argument counts there too. The map `args` always has it."""
    names = {**of_a_task, "who": "argument", "ctx": {"who": "workload"}}
    config = RhaiConfig(code="[who, args.who, step]", input={"who": "argument", "step": "x"})
    result = await run_in(context(dialect=dialect, **names), config)
    assert result.data == [who, "argument", "s1"]


async def test_script_of_the_published_playbooks_runs() -> None:
    code = """
        // waits for an operation, as the published cluster playbook does
        let tries = 0;
        let status = "";
        while tries < args.max_tries {
            tries += 1;
            status = if tries == 3 { "DONE" } else { "RUNNING" };
            log(`try ${tries}: ${status}`);
            if status == "DONE" { break; }
            sleep_ms(1);
        }
        if status != "DONE" { throw "not done"; }
        return #{status: status, tries: tries, any: contains_any(status, ["done", "ok"])};
    """
    result = await run(code, {"max_tries": 5})
    assert result.data == {"status": "DONE", "tries": 3, "any": True}
    assert result.stdout == "try 1: RUNNING\ntry 2: RUNNING\ntry 3: DONE\n"


async def test_print_and_log_of_anything_are_the_output() -> None:
    result = await run('print("a"); log(1); info(#{x: 1}); warn([1]); debug("d"); error(())')
    assert result.stdout is not None
    assert result.stdout.splitlines()[0:2] == ["a", "1"]
    assert '[info] #{"x": 1}' in result.stdout


async def test_output_is_cut_without_half_of_a_secret() -> None:
    redaction.remember(lambda: SecretTexts(("Zq7-hunterSecret",)))
    code = 'let s = "y"; s.pad(65526, "x"); print(s + secret); print("more")'
    shown = await run(code, {"secret": "Zq7-hunterSecret"})
    assert shown.stdout == "y" + "x" * 65525 + "[REDACTED]\n"


async def test_json_goes_both_ways() -> None:
    assert (await run('let v = parse_json("{\\"a\\": [1, 2.5, null]}"); to_json(v)')).data == '{"a":[1,2.5,null]}'
    assert (await run('parse_json("no json")')).data is None


async def test_http_calls_return_a_map(server: str) -> None:
    answer = (await run(f'http_get("{server}/x")')).data
    assert (answer["status"], answer["status_str"], answer["ok"], answer["error"]) == (200, "200", True, None)
    assert answer["body"] == {"method": "GET", "path": "/x", "auth": None, "body": ""}
    assert json.loads(answer["body_raw"]) == answer["body"]


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        ('http_delete("{}/x")', ("DELETE", None, "")),
        ('http_post("{}/x", `[1]`)', ("POST", None, "[1]")),
        ('http_post("{}/x", #{{a: 1}})', ("POST", None, '{"a":1}')),
        ('http_get_auth("{}/x", "t")', ("GET", "Bearer t", "")),
        ('http_post_auth("{}/x", "b", "t")', ("POST", "Bearer t", "b")),
        ('http_delete_auth("{}/x", "t")', ("DELETE", "Bearer t", "")),
    ],
)
async def test_http_calls_of_both_dialects(server: str, call: str, seen: tuple[str, str | None, str]) -> None:
    body = (await run(call.format(server))).data["body"]
    assert (body["method"], body["auth"], body["body"]) == seen


async def test_http_status_and_transport_errors_are_values(server: str) -> None:
    assert (await run(f'let r = http_get("{server}/missing"); [r.status, r.ok]')).data == [404, False]
    assert (await run(f'http_get("{server}/text").body')).data == "plain text, no JSON"
    answer = (await run('http_get("http://127.0.0.1:9/")')).data
    assert (answer["status"], answer["ok"], answer["body"]) == (0, False, None)
    assert answer["error"]


@pytest.mark.parametrize("code", ["let x = ;", 'eval("1")', 'import "x" as y;', "fn f( { }"])
async def test_script_that_does_not_parse_is_a_configuration_error(code: str) -> None:
    with pytest.raises(ConfigurationError, match="rhai: script does not parse"):
        await run(code)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ('throw "why"', "execution", "why"),
        ("no_such_function(1)", "execution", "no_such_function"),
        ('let s = "aaaaaaaa"; loop { s += s; }', "resource", "too large"),
        ("fn f(n) { f(n + 1) } f(0)", "resource", "Stack overflow"),
        ("let a = [1]; loop { a += a; }", "resource", "too large"),
    ],
)
async def test_failure_has_a_kind_and_a_text(code: str, kind: str, says: str) -> None:
    with pytest.raises(ToolError) as caught:
        await run(code)
    assert caught.value.kind == kind
    assert says in str(caught.value)


async def test_failure_tells_what_the_script_had_printed() -> None:
    with pytest.raises(ToolError, match=r"why.*it had printed: so far"):
        await run('print("so far"); throw "why"')


@pytest.mark.parametrize("code", ["loop { }", "sleep(1000)", "loop { try { sleep(1000) } catch { } }"])
async def test_timeout_of_the_command_ends_the_script(code: str) -> None:
    """It would go on for longer than this test lasts."""
    result = await run(code, timeout_s=0.2)
    assert result.status is ToolStatus.TIMEOUT


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Its address, whether it has been asked, and whether who asked is gone."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await reader.read(1024):
                asked.set()
        gone.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", asked, gone


async def test_cancelled_task_stops_its_script() -> None:
    async with silent_server() as (url, asked, gone):
        task = asyncio.create_task(run(f'http_get("{url}")'))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


async def test_script_that_waits_takes_no_thread_that_names_are_looked_up_in() -> None:
    """Eight that slept took all default threads: an `http` command waited for its name until they had ended."""
    with ThreadPoolExecutor(1) as only:
        asyncio.get_running_loop().set_default_executor(only)
        async with silent_server() as (url, asked, _):
            task = asyncio.create_task(run(f'http_get("{url}")'))
            await asked.wait()
            assert await asyncio.get_running_loop().getaddrinfo("localhost", 1)
            assert not task.done()
            task.cancel()
            await asyncio.wait({task})
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
