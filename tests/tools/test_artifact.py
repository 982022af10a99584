"""Kinds `artifact` and `result_fetch`: the result store of the development plane, files, HTTP."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import MaybeProcessed, ServerRefused, ToolError
from noetl_worker.models import Dialect, JsonValue, ToolResult
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import MemoryControlPlane, arun_tool, run_tool
from noetl_worker.tools.kinds.artifact.artifact import ArtifactTool
from noetl_worker.tools.kinds.result_fetch.result_fetch import ResultFetchTool
from patience import PATIENCE_S, until
from tool_settings import tool_settings

from .http_server import ToolServer

Answer = Callable[[httpx.Request], httpx.Response]


class PlaneOfOneExecution:
    """The tool's view of a real plane, as the worker makes it."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Any:
        return await self._plane.put_result(4711, name, data, source_step=source_step)

    async def resolve_result(self, ref: str) -> JsonValue:
        return (await self._plane.stored_result(ref))[0]


class BrokenPlane(MemoryControlPlane):
    """Raises what the client raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def resolve_result(self, ref: str) -> JsonValue:
        raise self.error

    async def put_result(self, name: str, data: bytes, *, source_step: str) -> Any:
        raise self.error


@pytest.fixture
async def plane(dialect: Dialect) -> AsyncIterator[PlaneOfOneExecution]:
    async with DevControlPlane(PlaneSettings(dialect=dialect)) as control_plane:
        settings = load_settings({"NOETL_SERVER_URL": control_plane.url})
        client = ControlPlaneClient(open_transport(settings), settings)
        yield PlaneOfOneExecution(await client.plane(""))
        await client.close()


class Store:
    """Answers every request with this content."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, content=self.content)


def artifact(config: dict[str, Any], answer: Answer | None = None, **context: Any) -> ToolResult:
    return run_tool(ArtifactTool(httpx.MockTransport(answer) if answer else None), config, **context)


def refused(config: dict[str, Any], answer: Answer | None = None, **context: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        artifact(config, answer, **context)
    return caught.value


# ── the result store ────────────────────────────────────────────────────────────────────────────


async def test_a_result_is_put_fetched_and_compared_on_both_planes(plane: Any) -> None:
    value = {"rows": [{"id": 2**53 + 1, "name": "é"}], "none": None}
    put = (await arun_tool("artifact", {"action": "put", "data": value, "name": "rows"}, control_plane=plane)).data
    reference = put["uri"]
    assert reference.startswith("noetl://execution/4711/result/rows/")
    assert (put["ref"], put["scope"], put["compressed"]) == (reference, "execution", False)
    got = await arun_tool("artifact", {"uri": reference, "sha256": put["sha256"]}, control_plane=plane)
    same = {name: put[name] for name in ("uri", "size_bytes", "sha256")}
    assert got.data == {"data": value, "compressed": False, **same}
    fetched = await arun_tool("result_fetch", {"ref": reference}, control_plane=plane)
    assert fetched.data == value
    for kind, config in (("artifact", {"uri": f"{reference}0"}), ("result_fetch", {"ref": f"{reference}0"})):
        with pytest.raises(ToolError) as caught:
            await arun_tool(kind, config, control_plane=plane)
        assert (caught.value.kind, caught.value.retryable) == ("not_found", False)
        assert str(caught.value) == f"no result at {reference}0: never stored, or expired; run the step that stores it"


def stored(value: JsonValue) -> tuple[MemoryControlPlane, str]:
    plane = MemoryControlPlane()
    plane.results["noetl://execution/1/result/s/1"] = json.dumps(value).encode()
    return plane, "noetl://execution/1/result/s/1"


@pytest.mark.parametrize(
    "config",
    [
        {"result_ref": "REF"},
        {"uri": "REF"},
        {"ref": "REF"},
        {"result_ref": {"kind": "result_ref", "ref": "REF", "store": "kv"}},
        {"input": {"result_ref": "REF"}},
        {"args": {"result_ref": "REF"}},
        {"args": {"uri": "REF", "other": 1}},
        {"action": "get", "args": {"uri": "REF"}, "input": {"result_ref": {"ref": "REF"}}},
    ],
)
def test_a_reference_is_found_wherever_playbooks_write_it(config: dict[str, Any]) -> None:
    """Under `args`, under `input`, under both, flat."""
    plane, reference = stored([1, 2])
    config = json.loads(json.dumps(config).replace("REF", reference))
    assert artifact(config, control_plane=plane).data["data"] == [1, 2]


@pytest.mark.parametrize("name", ["ref", "result_ref", "uri"])
def test_result_fetch_gives_the_json_as_it_is(name: str) -> None:
    plane, reference = stored({"status": "error", "x": "{{ not a template }}"})
    result = run_tool(ResultFetchTool(), {name: reference, "prefer": "flight"}, control_plane=plane)
    assert result.data == {"status": "error", "x": "{{ not a template }}"}


def test_a_result_of_another_digest_is_refused() -> None:
    plane, reference = stored({"x": 1})
    error = refused({"uri": reference, "sha256": "0" * 64}, control_plane=plane)
    digest = hashlib.sha256(b'{"x":1}').hexdigest()
    assert str(error) == (
        f"the content of {reference} has SHA-256 {digest}, not {'0' * 64}: store it again, or correct 'sha256'"
    )
    assert error.kind == "parse"


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (ServerRefused("503 busy", status=503, body=""), "server_error", True),
        (ServerRefused("404 a proxy's page", status=404, body="", is_page=True), "server_error", True),
        (ServerRefused("403 no", status=403, body=""), "auth", False),
        (ServerRefused("422 no", status=422, body=""), "client_error", False),
        (MaybeProcessed("no answer"), "connection", True),
    ],
)
def test_a_plane_that_does_not_give_it_is_told_by_kind(error: Exception, kind: str, retryable: bool) -> None:
    with pytest.raises(ToolError) as caught:
        run_tool(ResultFetchTool(), {"ref": "noetl://x"}, control_plane=BrokenPlane(error))
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)


def test_a_put_that_the_plane_does_not_take_is_a_failure() -> None:
    error = refused({"action": "put", "data": 1}, control_plane=BrokenPlane(MaybeProcessed("no answer")))
    text = "the result 'step' cannot be stored: no answer: see the control plane's log, then run the step again"
    assert (str(error), error.kind) == (text, "connection")


def test_a_stored_result_above_the_limit_is_refused() -> None:
    plane, reference = stored("x" * 20)
    error = refused({"uri": reference, "max_bytes": 10}, control_plane=plane)
    assert (str(error), error.kind) == (f"{reference} has 22 bytes, more than 10: raise 'max_bytes'", "resource")
    error = refused({"action": "put", "data": "x" * 20, "max_bytes": 10})
    assert str(error) == "the data has 22 bytes, more than 10: raise 'max_bytes'"


# ── files ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("value", [{"a": [1, None]}, "text é", "", [1], True])
def test_a_file_is_written_and_read_back(tmp_path: Path, value: Any, compress: bool) -> None:
    uri = f"file://{tmp_path}/deep/er/out%20put.json"
    put = artifact({"action": "put", "uri": uri, "data": value, "compress": compress})
    file = tmp_path / "deep" / "er" / "out put.json"
    content = file.read_bytes()
    assert put.data == {
        "uri": uri, "size_bytes": len(content), "compressed": compress, "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    got = artifact({"uri": uri, "sha256": put.data["sha256"].upper()})
    assert got.data == {**put.data, "data": value}
    assert [one.name for one in file.parent.iterdir()] == ["out put.json"]


def test_bytes_and_text_in_the_encoding_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "b")
    encoded = base64.b64encode(b"\xff\x00").decode()
    artifact({"action": "put", "uri": path, "data": encoded, "encoding": "base64"})
    assert artifact({"uri": path}).data["data"] == {"base64": encoded, "size": 2}
    assert artifact({"uri": path, "encoding": "base64"}).data["data"] == encoded
    error = refused({"uri": path, "encoding": "text"})
    assert str(error) == f"{path} is not UTF-8 text: ask for it with encoding: base64"
    error = refused({"uri": path, "encoding": "json"})
    assert error.kind == "parse"
    (tmp_path / "n").write_text("12")
    assert artifact({"uri": str(tmp_path / "n"), "encoding": "text"}).data["data"] == "12"
    assert artifact({"path": str(tmp_path / "n"), "encoding": "json"}).data["data"] == 12


def test_what_cannot_be_read_is_told_by_kind(tmp_path: Path) -> None:
    missing = refused({"uri": f"file://{tmp_path}/none"})
    advice = "name a file that can be read"
    problem = f"{tmp_path}/none cannot be read: No such file or directory; {advice}"
    assert (str(missing), missing.kind) == (problem, "not_found")
    folder = refused({"uri": f"file://{tmp_path}"})
    assert (str(folder), folder.kind) == (
        f"{tmp_path} cannot be read: the path is no regular file; {advice}",
        "client_error",
    )
    os.mkfifo(tmp_path / "pipe")
    problem = f"{tmp_path}/pipe cannot be read: the path is no regular file; {advice}"
    assert str(refused({"uri": f"{tmp_path}/pipe"})) == problem
    (tmp_path / "large").write_bytes(b"x" * 11)
    large = refused({"uri": f"{tmp_path}/large", "max_bytes": 10})
    assert str(large) == f"{tmp_path}/large has more than 10 bytes: raise 'max_bytes'"
    other = refused({"uri": f"{tmp_path}/large", "sha256": "00"})
    assert other.kind == "parse"
    under_a_file = refused({"action": "put", "uri": f"{tmp_path}/large/x", "data": 1})
    assert under_a_file.kind == "client_error"


def test_gzip_is_unpacked_within_the_limit(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"0" * 1_000_000))
    error = refused({"uri": f"{tmp_path}/bomb.gz", "max_bytes": 10_000})
    assert str(error) == f"{tmp_path}/bomb.gz unpacks to more than 10000 bytes: raise 'max_bytes'"
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"0" * 1_000)[:-6])
    error = refused({"uri": f"{tmp_path}/cut.gz"})
    assert error.kind == "parse"


def test_files_stay_inside_the_root_when_one_is_set(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside").write_text("x")
    (inside / "link").symlink_to(tmp_path / "outside")
    settings = tool_settings(NOETL_ARTIFACT_ROOT=str(inside))
    artifact({"action": "put", "uri": f"{inside}/a", "data": 1}, settings=settings)
    for uri in (f"{tmp_path}/outside", f"{inside}/../outside", f"{inside}/link"):
        assert (
            str(refused({"uri": uri}, settings=settings))
            == f"artifact: {uri!r} is outside NOETL_ARTIFACT_ROOT={inside}: name a file in it"
        )


# ── HTTP ────────────────────────────────────────────────────────────────────────────────────────


def test_content_comes_over_http_with_the_credential() -> None:
    store = Store(b'{"a": 1}')
    got = artifact(
        {"uri": "https://store/x.json?sig=hidden", "auth": "token", "headers": {"X-N": 1, "X-None": None}},
        store,
        credentials={"token": {"type": "bearer", "token": "t0ken"}},
    )
    assert got.data["data"] == {"a": 1}
    (seen,) = store.requests
    assert (seen.headers["authorization"], seen.headers["x-n"]) == ("Bearer t0ken", "1")
    assert str(seen.url) == "https://store/x.json?sig=hidden"


def test_content_is_put_over_http() -> None:
    store = Store()
    put = artifact({"action": "put", "uri": "http://store/x", "data": {"a": 1}}, store)
    artifact({"action": "put", "uri": "http://store/x", "data": "a,b", "content_type": "text/csv"}, store)
    first, second = store.requests
    assert (first.method, first.content, first.headers["content-type"]) == ("PUT", b'{"a":1}', "application/json")
    assert put.data["size_bytes"] == 7
    assert second.headers["content-type"] == "text/csv"


def test_http_failures_are_told_without_the_query() -> None:
    config = {"uri": "https://store/x?sig=hidden"}
    for status, kind, retryable in ((404, "not_found", False), (403, "auth", False), (503, "server_error", True)):
        error = refused(config, lambda request, status=status: httpx.Response(status))
        assert (str(error), error.kind, error.retryable) == (f"GET https://store/x: HTTP {status}", kind, retryable)
    large = refused({**config, "max_bytes": 10}, lambda request: httpx.Response(200, content=b"x" * 11))
    assert str(large) == "https://store/x has more than 10 bytes: raise 'max_bytes'"

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    gone = refused(config, refuse)
    assert (str(gone), gone.kind, gone.retryable) == (
        "GET https://store/x: ConnectError: refused", "connection", True,
    )  # fmt: skip


def test_the_whole_call_ends_with_its_timeout(server: ToolServer) -> None:
    result = run_tool("artifact", {"uri": server.url("/silent"), "timeout": 0.05})
    assert result.status.value == "timeout"


@pytest.mark.parametrize(
    "address",
    ["/x?acl", "/x?a=b%2Fc&d&e=x+y&f=%20z&sig=a%2Bb~*(1)", "/x?a=1&b=2&a=3", "/x?b=%E9", "/x?t=e=1~acl=/*", "/x"],
)
def test_an_address_is_asked_for_as_it_is_written(address: str) -> None:
    store = Store()
    artifact({"uri": f"http://store{address}"}, store)
    assert [request.url.raw_path for request in store.requests] == [address.encode()]


def test_a_key_of_the_query_is_added_to_the_address() -> None:
    store = Store()
    key = {"type": "api_key", "key": "k1", "in": "query", "name": "key"}
    artifact({"uri": "http://store/x?a=1", "auth": "key"}, store, credentials={"key": key})
    assert [str(request.url) for request in store.requests] == ["http://store/x?a=1&key=k1"]


async def test_a_put_that_timed_out_does_not_land_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, target = threading.Event(), tmp_path / "x.json"
    target.write_text("newer")
    monkeypatch.setattr(os, "fsync", lambda file: let_go.wait(PATIENCE_S))
    result = await arun_tool("artifact", {"action": "put", "uri": str(target), "data": "older", "timeout": 0.05})
    assert result.status.value == "timeout"
    assert len(list(tmp_path.iterdir())) == 2
    let_go.set()
    await until(lambda: list(tmp_path.iterdir()) == [target], "the file beside it is gone")
    assert target.read_text() == "newer"
