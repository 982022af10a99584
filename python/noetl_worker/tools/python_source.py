"""Where the code of a `python` step comes from: the step itself, a file, an http(s) address, a gs:// object."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import anyio
import httpx

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import seconds
from noetl_worker.tools.http_answer import kind_of, read
from noetl_worker.tools.http_auth import Authorization, Authorizer, check_auth
from noetl_worker.tools.http_client import Clients, send, shown
from noetl_worker.tools.http_tokens import Tokens

__all__ = ["Sources", "check_code", "check_script"]

MAX_CODE_BYTES: Final = 4 * 1024 * 1024
_TIMEOUT_S: Final = 30.0
_NO_CODE: Final = "python: no code; give 'code', 'script' or 'code_b64'"
_TYPES: Final = ("inline", "file", "http", "gcs")
_READ_ONLY: Final = "https://www.googleapis.com/auth/devstorage.read_only"
_STORAGE: Final = "https://storage.googleapis.com"


class Sources:
    """Reads code; keeps the connections it reads from until `aclose`."""

    def __init__(self) -> None:
        self._clients = Clients()
        self._authorizer = Authorizer(Tokens(self._clients))

    async def code(
        self,
        context: ToolContext,
        *,
        script: str | Mapping[str, Any] | None,
        code_b64: str | None,
        code: str | None,
    ) -> str:
        """The text to run: from `script`, `code_b64` or `code`, in this order.

        Raises:
            ConfigurationError: there is none, or it cannot be read.
            ToolError: an address that does not answer, or not with 2xx.
        """
        if script is not None:
            text = await self.of_script(script, context)
        else:
            text = _given(code_b64, code)
        if not text.strip():
            raise ConfigurationError(_NO_CODE)
        return text

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def of_script(self, script: str | Mapping[str, Any], context: ToolContext) -> str:
        """The text of a `script` field; raises as `code` does."""
        place = _place(script)
        return place.code if place.code is not None else await self._of_address(place.uri, place.details, context)

    async def _of_address(self, uri: str, details: Mapping[str, Any], context: ToolContext) -> str:
        scheme = urlsplit(uri).scheme
        if scheme in ("", "file"):
            return await asyncio.to_thread(_of_file, uri)
        if scheme in ("http", "https"):
            auth = details.get("auth") or details.get("credential")
            authorization = await self._authorizer.authorize(auth, context)
            return await self._fetched(uri, uri, authorization, details)
        return await self._of_bucket(uri, details, context)

    async def _of_bucket(self, uri: str, details: Mapping[str, Any], context: ToolContext) -> str:
        parts = urlsplit(uri)
        bucket, name = parts.netloc, parts.path.lstrip("/")
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        base = _STORAGE if not emulator else emulator if "://" in emulator else f"http://{emulator}"
        alias = details.get("auth") or details.get("credential")
        auth = alias if alias is not None else {"type": "gcp_adc", "scopes": [_READ_ONLY]}
        authorization = (
            Authorization() if emulator and alias is None else await self._authorizer.authorize(auth, context)
        )
        url = f"{base}/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}?alt=media"
        return await self._fetched(url, uri, authorization, details)

    async def _fetched(self, url: str, name: str, authorization: Authorization, details: Mapping[str, Any]) -> str:
        limit_s = _limit_s(details)
        place = name if name.startswith("gs:") else shown(httpx.URL(name))
        try:
            async with self._clients.lease() as client:
                method = str(details.get("method") or "GET").upper()
                request = client.build_request(method, url, headers=authorization.headers)
                if authorization.params:
                    request.url = request.url.copy_merge_params(authorization.params)
                secret = tuple(authorization.headers)
                with anyio.fail_after(limit_s):
                    response = await send(client, request, follow_redirects=True, secret_headers=secret)
                    content = await read(response, MAX_CODE_BYTES)
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"python: script address {place!r} cannot be used: {error}") from error
        except (httpx.HTTPError, OSError) as error:  # TimeoutError and ssl.SSLError are OSErrors
            text = f"python: script {place!r} cannot be fetched: {type(error).__name__}: {error}"
            raise ToolError(text, kind="connection", retryable=True) from error
        if not response.is_success:
            kind, retryable = kind_of(response.status_code)
            status = response.status_code
            text = f"python: script {place!r} cannot be fetched: HTTP {status}"
            raise ToolError(text, kind=kind, retryable=retryable, code=str(status))
        if content.is_cut:
            raise ConfigurationError(f"python: script {place!r} is over {MAX_CODE_BYTES >> 20} MiB")
        return _decoded(content.take(), place)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a `script` field says that the code is: in itself, or at an address."""

    code: str | None = None
    uri: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def check_code(*, script: str | Mapping[str, Any] | None, code_b64: str | None, code: str | None) -> None:
    """What can be told of the code without fetching it; for a config model's `__post_init__`.

    Raises:
        ConfigurationError: there is none, or it is where no code can be.
    """
    text = _given(code_b64, code) if script is None else check_script(script)
    if text is not None and not text.strip():
        raise ConfigurationError(_NO_CODE)


def check_script(script: str | Mapping[str, Any]) -> str | None:
    """The same of a `script` field: the code where it stands in itself, None where it has to be fetched."""
    place = _place(script)
    if place.code is not None:
        return place.code
    parts = urlsplit(place.uri)
    if parts.scheme not in ("", "file", "http", "https", "gs"):
        raise ConfigurationError(
            f"python: script address {place.uri!r}: a path, file://, http(s):// or gs:// is needed "
            "(s3: a signed https URL)"
        )
    if parts.scheme == "gs" and not (parts.netloc and parts.path.lstrip("/")):
        raise ConfigurationError(f"python: script address {place.uri!r}: gs://<bucket>/<object> is needed")
    if parts.scheme in ("http", "https", "gs"):
        check_auth(place.details.get("auth") or place.details.get("credential"))
        _limit_s(place.details)
    return None


def _given(code_b64: str | None, code: str | None) -> str:
    return (code or "") if code_b64 is None else _of_base64(code_b64)


def _place(script: str | Mapping[str, Any]) -> _Place:
    """Raises ConfigurationError for an object that names no place."""
    if isinstance(script, str):
        return _Place(script) if _is_source(script) else _Place(uri=script.strip())
    source = script.get("source")
    details: Mapping[str, Any] = source if isinstance(source, Mapping) else {}
    kind = details.get("type")
    if kind is not None and kind not in _TYPES:
        text = f"python: script.source.type {kind!r} is none of {', '.join(_TYPES)}"
        raise ConfigurationError(text + (" (s3: type http and a signed https URL)" if kind == "s3" else ""))
    if isinstance(details.get("code"), str):
        return _Place(str(details["code"]))
    uri = script.get("uri") or details.get("uri") or (source if isinstance(source, str) else None)
    endpoint = details.get("endpoint")
    if kind == "http" and isinstance(endpoint, str):
        uri = _below(endpoint, uri) if isinstance(uri, str) and "://" not in uri else uri or endpoint
    if not isinstance(uri, str) or kind == "inline":
        raise ConfigurationError("python: 'script' needs 'uri', or 'source' with 'code'")
    return _Place(uri=uri.strip(), details=details)


def _below(endpoint: str, path: str) -> str:
    return f"{endpoint.rstrip('/')}/{path.lstrip('/')}"


def _limit_s(details: Mapping[str, Any]) -> float:
    given = details.get("timeout")
    return _TIMEOUT_S if given is None else seconds(given, "python: script.source.timeout")


def _is_source(script: str) -> bool:
    """Source text, not the name of a file: several lines, or something no path of ours looks like."""
    text = script.strip()
    return "\n" in text or not (text.startswith(("file:", "/", "./", "../")) or text.endswith(".py") or "://" in text)


def _of_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(f"python: 'code_b64' is not base64 of UTF-8 text: {error}") from error


def _of_file(uri: str) -> str:
    path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CODE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"python: script {uri!r} cannot be read: {error.strerror}") from error
    if len(data) > MAX_CODE_BYTES:
        raise ConfigurationError(f"python: script {uri!r} is over {MAX_CODE_BYTES >> 20} MiB")
    return _decoded(data, uri)


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"python: script {name!r} is not UTF-8 text: {error}") from error
