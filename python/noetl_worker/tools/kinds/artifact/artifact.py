"""Kind `artifact`: gets or puts content by its address in the plane's result store, in a file or over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

import httpx

from noetl_worker.errors import ConfigurationError, ControlPlaneError, DocumentError, ToolError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import off_loop
from noetl_worker.text.json_text import dumps, loads_in_room
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.error_kinds import http_failure
from noetl_worker.tools.fields import check_numbers, excerpt, ignored_field
from noetl_worker.tools.http.answer import read
from noetl_worker.tools.http.auth import OverHttp, check_auth
from noetl_worker.tools.http.client import http_address, send, shown
from noetl_worker.tools.http.secret_hosts import Destination
from noetl_worker.tools.kinds.artifact.files import absolute, artifact_path, read_file, write_file
from noetl_worker.tools.kinds.result_fetch.result_fetch import RESULT_SCHEME, parse_reference, resolve
from noetl_worker.tools.payload import as_bytes, as_text, parse_payloads, text_or_json
from noetl_worker.tools.process.shortage import before_any_effect

DEFAULT_MAX_BYTES: Final = 16 * 1024 * 1024
LARGEST_MAX_BYTES: Final = 256 * 1024 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ELSEWHERE: Final[Mapping[str, str]] = {
    "s3": "give a signed https:// address",
    "gs": "give a signed https:// address",
    "nats-kv": "use the nats tool with kv_get or kv_put",
    "nats-obj": "use the nats tool with object_get or object_put",
    "eventlog": "use the step's result in a template",
}
_FROM_INPUT: Final = ("uri", "result_ref", "data", "sha256")


@dataclass(frozen=True, slots=True)
class ArtifactConfig:
    """Gets content from an address, or puts content to an address.

    An address is noetl://... (the control plane's result store), file:///path or /path, http:// or https://. The
    fields uri, result_ref, data and sha256 may also stand under `input`. A field of the step itself takes precedence.
    """

    action: Literal["get", "put"] = "get"
    """get: return the content at the address. put: store `data` at the address."""
    uri: str | None = None
    """Address of the content, such as `file:///data/a.json`. A put without `uri` stores a result in the control plane's
    result store."""
    result_ref: str | dict[str, Any] | None = None
    """Reference of a stored result, used when `uri` is absent: text, or an object with the text under `ref`."""
    input: dict[str, Any] = field(default_factory=dict)
    """Values of uri, result_ref, data and sha256, each used when the field of this name is absent."""
    data: Any = None
    """The value that a put stores. Text is stored unchanged; any other value is stored as JSON."""
    name: str | None = None
    """Name under which a put without `uri` stores the result; absent: the step's name."""
    encoding: Literal["auto", "json", "text", "base64"] = "auto"
    """get: encoding of the returned content. auto is JSON if the content parses, else text, else base64. put: encoding
    of `data`; the worker decodes base64 before the put."""
    compress: bool = False
    """put: gzip the content. A get unpacks gzip content without this field."""
    sha256: str | None = None
    """get: SHA-256 digest that the stored content must have. With another digest the step fails."""
    max_bytes: int = DEFAULT_MAX_BYTES
    """Maximum bytes of the content, before and after gzip is unpacked; 16 MiB by default, at most 256 MiB."""
    auth: str | dict[str, Any] | None = None
    """Login for http(s): a credential's alias, or an object, as in the http tool."""
    headers: dict[str, Any] = field(default_factory=dict)
    """Further headers for http(s)."""
    content_type: str | None = None
    """Content-Type of a put to http(s); application/json or octet-stream when absent."""
    timeout: float | None = None
    """Longest time in seconds; absent: the command's remaining time."""

    def __post_init__(self) -> None:
        for name in _FROM_INPUT:
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.input.get(name))
        if self.uri is not None and not isinstance(self.uri, str):
            raise ConfigurationError("'uri' under 'input' must be text", field="uri")
        if self.result_ref is not None:
            object.__setattr__(self, "uri", self.uri or parse_reference(self.result_ref))
        check_numbers(1, LARGEST_MAX_BYTES, max_bytes=self.max_bytes)
        if self.action == "get" and self.uri is None:
            raise ConfigurationError(
                "get requires 'uri' or 'result_ref' (or either of them under 'input')", field="uri", reason="missing"
            )
        if self.action == "put" and self.data is None:
            raise ConfigurationError("put requires 'data'", field="data", reason="missing")
        self._check_place()
        if self.action == "put" and self.encoding == "base64" and self.scheme != "noetl":
            as_bytes("artifact", self.data, self.encoding)

    def _check_place(self) -> None:
        scheme = self.scheme
        if scheme in _ELSEWHERE:
            raise ConfigurationError(f"uri scheme {scheme!r} is not supported: {_ELSEWHERE[scheme]}", field="uri")
        if scheme not in ("noetl", "file", "http", "https"):
            raise ConfigurationError(
                f"uri {excerpt(str(self.uri), 160)!r} has no supported scheme: use noetl://, file://, http:// or "
                "https://",
                field="uri",
            )
        if self.action == "put" and scheme == "noetl" and self.compress:
            raise ConfigurationError(
                "'compress' is for files and http; the control plane compresses results itself: leave 'compress' out",
                field="compress",
            )
        if self.action == "put" and scheme == "noetl" and self.uri not in (None, RESULT_SCHEME):
            raise ConfigurationError(
                "the control plane chooses the reference of a stored result: leave 'uri' out, and give 'name'",
                field="uri",
            )
        if self.action == "get" and scheme == "noetl":
            parse_reference(self.uri)
        if scheme == "file":
            absolute(str(self.uri))
        if scheme in ("http", "https"):
            http_address(str(self.uri), "uri", "artifact")
            check_auth(self.auth)

    @property
    def scheme(self) -> str:
        if self.uri is None:
            return "noetl"
        return "file" if self.uri.startswith("/") else urlsplit(self.uri).scheme.lower()


class ArtifactTool(OverHttp):
    """Tool of kind `artifact`. Data of get: {data, uri, size_bytes, compressed, sha256}. Data of put: {uri, size_bytes,
    compressed, sha256}. A put to the result store adds the control plane's answer (ref, store, scope, expires_at).

    size_bytes and sha256 describe the content as stored (gzip included). For a stored result both fields describe the
    compact JSON.
    Errors: not_found, auth, resource (too large), parse (digest, gzip, JSON), server_error, connection.

    differs-from-upstream: a get returns the same fields from files, HTTP and the result store. For a stored result the
    Rust worker returns only the value, as `result_fetch` does. Here `put` works too, and `sha256` is compared.
    """

    kind: ClassVar[str] = "artifact"
    config_model: ClassVar[type] = ArtifactConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"ref": "result_ref", "path": "uri", "url": "uri"}

    def ignored(self, config: ArtifactConfig) -> list[ConfigurationError]:
        """Return a warning for each field without effect in this step, such as `compress` in a get."""
        is_http, is_put = config.scheme in ("http", "https"), config.action == "put"
        read = {
            "auth": (is_http, "it is for http(s)"),
            "headers": (is_http, "it is for http(s)"),
            "content_type": (is_http and is_put, "it is for a put to http(s)"),
            "compress": (is_put, "it is for a put"),
            "sha256": (not is_put, "it is for a get"),
        }
        unread = {name: why for name, (is_read, why) in read.items() if getattr(config, name) and not is_read}
        return [ignored_field(self.kind, name, why) for name, why in unread.items()]

    async def run(self, config: ArtifactConfig, context: ToolContext) -> ToolResult:
        act = self._get if config.action == "get" else self._put
        with before_any_effect("to read or store the artifact"):  # a put without connection or file has stored nothing
            return await in_time(act(config, context), context.timeout_s)

    # ── get ─────────────────────────────────────────────────────────────────────────────────────

    async def _get(self, config: ArtifactConfig, context: ToolContext) -> dict[str, JsonValue]:
        assert config.uri is not None
        if config.scheme == "noetl":
            return await _stored(config, context)
        if config.scheme == "file":
            content = await asyncio.to_thread(read_file, artifact_path(config.uri, context.settings), config.max_bytes)
        else:
            content = await self._exchange("GET", config, context, None)
        largest = config.max_bytes if content.startswith(_GZIP_MAGIC) else len(content)
        unpacked, described = await off_loop(largest, lambda: _checked(config, content))
        return {"data": await _decoded(config, unpacked, context.stop), **described}

    # ── put ─────────────────────────────────────────────────────────────────────────────────────

    async def _put(self, config: ArtifactConfig, context: ToolContext) -> dict[str, JsonValue]:
        if config.scheme == "noetl":
            return await _store(config, context)
        assert config.uri is not None
        content = as_bytes("artifact", config.data, config.encoding)
        _bounded(config, len(content))
        if config.compress:
            content = await asyncio.to_thread(gzip.compress, content, 6, mtime=0)
        if config.scheme == "file":
            stopped = threading.Event()
            try:
                await asyncio.to_thread(write_file, artifact_path(config.uri, context.settings), content, stopped)
            finally:
                stopped.set()
        else:
            await self._exchange("PUT", config, context, content)
        return _described(config.uri, content, is_packed=config.compress)

    async def _exchange(
        self, method: str, config: ArtifactConfig, context: ToolContext, content: bytes | None
    ) -> bytes:
        """Send an HTTP request to `config.uri` and return the body of the answer.

        Raises:
            ToolError: no answer arrived, the status is not 2xx, or a GET's body exceeds `max_bytes`.
        """
        destination = Destination(str(config.uri), config.headers)
        permit = await self._authorizer.authorize(config.auth, context, destination)
        headers = {name: text_or_json(value) for name, value in config.headers.items() if value is not None}
        if content is not None:
            default = "application/octet-stream" if isinstance(config.data, str) else "application/json"
            headers.setdefault("Content-Type", config.content_type or default)
        try:
            url = httpx.URL(str(config.uri))
            if permit.params:  # otherwise the query stays as written: it may be signed
                url = url.copy_merge_params(dict(permit.params))
            request = httpx.Request(method, url, headers={**headers, **permit.headers}, content=content)
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError(
                f"artifact: the request to {_place(config.uri)} cannot be built: {error}"
            ) from error
        place = shown(request.url)
        try:
            async with self._clients.lease(to=str(request.url), settings=context.settings) as client:
                response = await send(
                    client, request, follow_redirects=method == "GET", secret_headers=list(permit.headers)
                )
                answer = await read(response, config.max_bytes)
        except httpx.HTTPError as error:
            text = f"{method} {place}: {type(error).__name__}: {error}"
            raise ToolError(text, kind="connection", retryable=True, code=type(error).__name__) from error
        if not response.is_success:
            raise http_failure(f"{method} {place}: HTTP {response.status_code}", response.status_code)
        if answer.is_cut and method == "GET":
            raise ToolError(f"{place} has more than {config.max_bytes} bytes: raise 'max_bytes'", kind="resource")
        return answer.take()


def _checked(config: ArtifactConfig, content: bytes) -> tuple[bytes, dict[str, JsonValue]]:
    """Return the unpacked content, and the result fields `uri`, `size_bytes`, `compressed` and `sha256`. Raises
    ToolError if the digest is not `config.sha256`, or if gzip content cannot be unpacked."""
    is_packed = content.startswith(_GZIP_MAGIC)
    described = _described(config.uri, content, is_packed=is_packed)
    _check_digest(config, described)
    return _unpacked(config, content) if is_packed else content, described


def _check_digest(config: ArtifactConfig, described: Mapping[str, JsonValue]) -> None:
    digest = described["sha256"]
    if config.sha256 is not None and config.sha256.strip().lower() != digest:
        text = f"the content of {_place(config.uri)} has SHA-256 {digest}, not {config.sha256}"
        raise ToolError(f"{text}: store it again, or correct 'sha256'", kind="parse")


async def _stored(config: ArtifactConfig, context: ToolContext) -> dict[str, JsonValue]:
    reference = parse_reference(config.uri)
    data = await resolve(reference, context)
    text = dumps(data)
    _bounded(config, len(text))
    described = await off_loop(len(text), partial(_described, reference, text))
    _check_digest(config, described)
    return {"data": data, **described}


async def _store(config: ArtifactConfig, context: ToolContext) -> dict[str, JsonValue]:
    text = dumps(config.data)
    _bounded(config, len(text))
    name = config.name or context.command.step
    try:
        stored = await context.worker.control_plane.put_result(name, text, source_step=context.command.step)
    except ControlPlaneError as error:
        kind = "connection" if error.is_retryable else "server_error"
        told = f"the result {name!r} cannot be stored: {error}: see the control plane's log, then run the step again"
        raise ToolError(told, kind=kind, retryable=True) from error
    reference = stored.get("ref")
    if not isinstance(reference, str):
        answer = "the control plane stored the result but gave no reference: report this bug of the control plane"
        raise ToolError(answer, kind="server_error")
    kept = {key: stored[key] for key in ("ref", "store", "scope", "expires_at") if key in stored}
    return {**kept, **_described(reference, text)}


def _described(uri: str | None, content: bytes, *, is_packed: bool = False) -> dict[str, JsonValue]:
    digest = hashlib.sha256(content).hexdigest()
    return {"uri": uri, "size_bytes": len(content), "compressed": is_packed, "sha256": digest}


def _bounded(config: ArtifactConfig, size: int) -> None:
    if size > config.max_bytes:
        place = _place(config.uri) if config.uri else "the data"
        raise ToolError(f"{place} has {size} bytes, more than {config.max_bytes}: raise 'max_bytes'", kind="resource")


def _unpacked(config: ArtifactConfig, content: bytes) -> bytes:
    """Return the content with gzip unpacked. Raise ToolError if the unpacked content exceeds `max_bytes`: a packed
    kilobyte can hold a gigabyte."""
    place = _place(config.uri)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            content = file.read(config.max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ToolError(f"{place} is not a complete gzip file: {error}; store it again", kind="parse") from error
    if len(content) > config.max_bytes:
        raise ToolError(f"{place} unpacks to more than {config.max_bytes} bytes: raise 'max_bytes'", kind="resource")
    return content


async def _decoded(config: ArtifactConfig, content: bytes, owner: object) -> JsonValue:
    if config.encoding == "auto":
        return (await parse_payloads([content], owner))[0]
    if config.encoding == "json":
        try:
            return await loads_in_room(content, owner)
        except DocumentError as error:
            raise ToolError(
                f"{_place(config.uri)} is not JSON: {error}; give another 'encoding'", kind="parse"
            ) from error
    return await off_loop(len(content), lambda: as_text(_place(config.uri), content, config.encoding))


def _place(uri: str | None) -> str:
    """Return the address `uri` for an error text. An HTTP address is shown without the parts that may be secret."""
    text = str(uri)
    return shown(httpx.URL(text)) if text.lower().startswith("http") else text
