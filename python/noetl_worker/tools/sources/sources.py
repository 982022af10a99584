"""Reading the code or SQL of a step: from the step itself, a file, an http(s) address, or an object of a bucket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import anyio
import httpx

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.process.threads import off_loop
from noetl_worker.remote.transport.url_path import url_path
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.deadline import seconds
from noetl_worker.tools.error_kinds import http_failure
from noetl_worker.tools.file_roots import opened
from noetl_worker.tools.http.answer import read
from noetl_worker.tools.http.auth import Authorization, OverHttp, check_auth
from noetl_worker.tools.http.client import send, shown
from noetl_worker.tools.http.secret_hosts import Destination
from noetl_worker.tools.process.shortage import before_any_effect
from noetl_worker.tools.sources.s3_object import signed

MAX_CODE_BYTES: Final = 4 * 1024 * 1024
_TIMEOUT_S: Final = 30.0
_TYPES: Final = ("inline", "file", "http", "gcs", "s3")
_SCHEMES: Final = ("", "file", "http", "https", "gs", "s3")
_BUCKETS: Final = ("gs", "s3")
_READ_ONLY: Final = "https://www.googleapis.com/auth/devstorage.read_only"
_STORAGE: Final = "https://storage.googleapis.com"


class Sources(OverHttp):
    """Reads code, and keeps the connections until `aclose`.

    Args:
        kind: the tool's kind, for messages.
    """

    def __init__(self, kind: str = "python") -> None:
        super().__init__()
        self._kind = kind

    async def of_script(self, script: str | Mapping[str, Any], context: ToolContext) -> str:
        """Return the text of a `script` field.

        Raises:
            ConfigurationError: the script cannot be read.
            ToolError: an address does not answer, or not with 2xx.
        """
        place = _place(script, self._kind)
        if place.code is not None:
            return place.code
        with before_any_effect("no room to fetch the script"):
            return await self._of_address(place.uri, place.details, context)

    async def _of_address(self, uri: str, details: Mapping[str, Any], context: ToolContext) -> str:
        scheme = urlsplit(uri).scheme
        if scheme in ("", "file"):
            return await asyncio.to_thread(_of_file, uri, self._kind, context.settings)
        if scheme in ("http", "https"):
            destination = Destination(uri, _headers(details, self._kind))
            authorization = await self._authorizer.authorize(details.get("auth"), context, destination)
            return await self._fetched(uri, uri, authorization, details)
        if scheme == "s3":
            url, headers = await signed(uri, details, context)
            wait = {"timeout": details.get("timeout")}  # the signature is for a GET without further headers
            return await self._fetched(url, uri, Authorization(headers), wait)
        return await self._of_bucket(uri, details, context)

    async def _of_bucket(self, uri: str, details: Mapping[str, Any], context: ToolContext) -> str:
        parts = urlsplit(uri)
        bucket, name = parts.netloc, parts.path.lstrip("/")
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        base = _STORAGE if not emulator else emulator if "://" in emulator else f"http://{emulator}"
        alias = details.get("auth")
        auth = alias if alias is not None else {"type": "gcp_adc", "scopes": [_READ_ONLY]}
        authorization = (
            Authorization()
            if emulator and alias is None
            else await self._authorizer.authorize(auth, context, Destination(base, _headers(details, self._kind)))
        )
        url = base + url_path("storage", "v1", "b", bucket, "o", name, alt="media")
        return await self._fetched(url, uri, authorization, details)

    async def _fetched(self, url: str, name: str, authorization: Authorization, details: Mapping[str, Any]) -> str:
        limit_s = _limit_s(details, self._kind)
        place = name if urlsplit(name).scheme in _BUCKETS else shown(httpx.URL(name))
        headers = {**_headers(details, self._kind), **authorization.headers}
        try:
            async with self._clients.lease(to=url) as client:
                method = str(details.get("method") or "GET").upper()
                request = client.build_request(method, url, headers=headers)
                if authorization.params:
                    request.url = request.url.copy_merge_params(authorization.params)
                secret = tuple(headers)
                with anyio.fail_after(limit_s):
                    response = await send(client, request, follow_redirects=True, secret_headers=secret)
                    content = await read(response, MAX_CODE_BYTES)
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"{self._kind}: script address {place!r} cannot be used: {error}") from error
        except (httpx.HTTPError, OSError) as error:  # TimeoutError and ssl.SSLError are OSErrors
            text = f"{self._kind}: script {place!r} cannot be fetched: {type(error).__name__}: {error}"
            raise ToolError(text, kind="connection", retryable=True) from error
        if not response.is_success:
            status = response.status_code
            text = f"{self._kind}: script {place!r} cannot be fetched: HTTP {status}" + _elsewhere(response)
            raise http_failure(text, status)
        if content.is_cut:
            raise ConfigurationError(f"{self._kind}: script {place!r} is over {MAX_CODE_BYTES >> 20} MiB")
        return await off_loop(content.size, lambda: _decoded(content.take(), place, self._kind))


@dataclass(frozen=True, slots=True)
class _ScriptAddress:
    """The place of a script: the code itself, or an address."""

    code: str | None = None
    uri: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def check_script(script: str | Mapping[str, Any], kind: str = "python") -> str | None:
    """Check as much of a `script` field as is possible without fetching it, for a config model's `__post_init__`.

    Returns:
        The code if the field contains it, None if it has to be fetched.

    Raises:
        ConfigurationError: the field names no possible place.
    """
    place = _place(script, kind)
    if place.code is not None:
        return place.code
    parts = urlsplit(place.uri)
    if parts.scheme not in _SCHEMES:
        text = f"script address {place.uri!r}: a path, file://, http(s)://, gs:// or s3:// is needed"
        raise ConfigurationError(text, field="script", tool=kind)
    if parts.scheme in _BUCKETS and not (parts.netloc and parts.path.lstrip("/")):
        text = f"script address {place.uri!r}: {parts.scheme}://<bucket>/<object> is needed"
        raise ConfigurationError(text, field="script", tool=kind)
    if parts.scheme in ("http", "https", "gs"):
        check_auth(place.details.get("auth"))
    if parts.scheme in ("http", "https", "gs", "s3"):
        _limit_s(place.details, kind)
        _headers(place.details, kind)
    return None


def _place(script: str | Mapping[str, Any], tool: str) -> _ScriptAddress:
    """Return the place of a script. Raises ConfigurationError for an object that names none."""
    if isinstance(script, str):
        return _ScriptAddress(script) if _is_source(script) else _ScriptAddress(uri=script.strip())
    source = script.get("source")
    details: Mapping[str, Any] = source if isinstance(source, Mapping) else {}
    kind = details.get("type")
    if kind is not None and kind not in _TYPES:
        raise ConfigurationError(
            f"script.source.type {kind!r} is none of {', '.join(_TYPES)}", field="script.source.type", tool=tool
        )
    if isinstance(details.get("code"), str):
        return _ScriptAddress(str(details["code"]))
    uri = script.get("uri") or details.get("uri") or (source if isinstance(source, str) else None)
    endpoint = details.get("endpoint")
    if kind == "http" and isinstance(endpoint, str):
        uri = _below(endpoint, uri) if isinstance(uri, str) and "://" not in uri else uri or endpoint
    if not isinstance(uri, str) or kind == "inline":
        raise ConfigurationError("'script' needs 'uri', or 'source' with 'code'", field="script", tool=tool)
    auth = details.get("auth") or details.get("credential")
    return _ScriptAddress(uri=uri.strip(), details={**details, "auth": auth})


def _below(endpoint: str, path: str) -> str:
    """Return the endpoint as the address, as the Python worker does; an endpoint ending in `/` is a directory."""
    return f"{endpoint}{path.lstrip('/')}" if endpoint.endswith("/") else endpoint


def _limit_s(details: Mapping[str, Any], kind: str) -> float:
    given = details.get("timeout")
    return _TIMEOUT_S if given is None else seconds(given, "script.source.timeout", kind)


def _headers(details: Mapping[str, Any], kind: str) -> dict[str, str]:
    given = details.get("headers")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"script.source.headers must be an object, not {type(given).__name__}",
            field="script.source.headers",
            tool=kind,
        )
    return {str(name): str(value) for name, value in given.items() if value is not None}


def _elsewhere(response: httpx.Response) -> str:
    """Return a hint to the right region, which S3 reports to a request in the wrong one."""
    region = response.headers.get("x-amz-bucket-region")
    return f" (its bucket is in {region}: give script.source.region)" if region and response.status_code != 404 else ""


def _is_source(script: str) -> bool:
    """Return True for source text, not a file's name: it has several lines, or does not look like a path."""
    text = script.strip()
    return "\n" in text or not (
        text.startswith(("file:", "/", "./", "../")) or text.endswith((".py", ".sql")) or "://" in text
    )


def _of_file(uri: str, kind: str, settings: ToolSettings) -> str:
    path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)
    with opened(f"{kind}: script", uri, path, settings) as file:
        data = file.read(MAX_CODE_BYTES + 1)
    if len(data) > MAX_CODE_BYTES:
        raise ConfigurationError(f"{kind}: script {uri!r} is over {MAX_CODE_BYTES >> 20} MiB")
    return _decoded(data, uri, kind)


def _decoded(data: bytes, name: str, kind: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{kind}: script {name!r} is not UTF-8 text: {error}") from error
