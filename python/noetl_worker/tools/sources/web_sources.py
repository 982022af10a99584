"""Reading the code or SQL of a step from an http(s) address or an object of a bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.process.threads import off_loop
from noetl_worker.remote.transport.url_path import url_path
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.error_kinds import http_failure
from noetl_worker.tools.http.answer import read
from noetl_worker.tools.http.auth import Authorization, OverHttp
from noetl_worker.tools.http.client import send, shown
from noetl_worker.tools.http.secret_hosts import Destination
from noetl_worker.tools.sources.s3_object import signed
from noetl_worker.tools.sources.script_address import BUCKETS, MAX_CODE_BYTES, decoded, limit_s, script_headers

_READ_ONLY: Final = "https://www.googleapis.com/auth/devstorage.read_only"
_STORAGE: Final = "https://storage.googleapis.com"


class WebSources(OverHttp):
    """Fetches scripts from addresses. The connections stay open until `aclose`.

    Args:
        kind: the tool's kind, for messages.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    async def fetched(self, uri: str, details: Mapping[str, Any], context: ToolContext) -> str:
        """Fetch the script at an address and return its text.

        Raises:
            ConfigurationError: the address or `details` cannot be used, or the script is too large or not UTF-8.
            ToolError: the server does not answer, or answers with a status other than 2xx.
        """
        scheme = urlsplit(uri).scheme
        if scheme in ("http", "https"):
            destination = Destination(uri, script_headers(details, self._kind))
            authorization = await self._authorizer.authorize(details.get("auth"), context, destination)
            return await self._fetched(uri, uri, authorization, details, context.settings)
        if scheme == "s3":
            url, headers = await signed(uri, details, context)
            wait = {"timeout": details.get("timeout")}  # the signature is for a GET without further headers
            return await self._fetched(url, uri, Authorization(headers), wait, context.settings)
        return await self._fetch_object(uri, details, context)

    async def _fetch_object(self, uri: str, details: Mapping[str, Any], context: ToolContext) -> str:
        parts = urlsplit(uri)
        bucket, name = parts.netloc, parts.path.lstrip("/")
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        base = _STORAGE if not emulator else emulator if "://" in emulator else f"http://{emulator}"
        alias = details.get("auth")
        auth = alias if alias is not None else {"type": "gcp_adc", "scopes": [_READ_ONLY]}
        authorization = (
            Authorization()
            if emulator and alias is None
            else await self._authorizer.authorize(auth, context, Destination(base, script_headers(details, self._kind)))
        )
        url = base + url_path("storage", "v1", "b", bucket, "o", name, alt="media")
        return await self._fetched(url, uri, authorization, details, context.settings)

    async def _fetched(
        self,
        url: str,
        name: str,
        authorization: Authorization,
        details: Mapping[str, Any],
        settings: ToolSettings,
    ) -> str:
        most_s = limit_s(details, self._kind)
        place = name if urlsplit(name).scheme in BUCKETS else shown(httpx.URL(name))
        headers = {**script_headers(details, self._kind), **authorization.headers}
        try:
            async with self._clients.lease(to=url, settings=settings) as client:
                method = str(details.get("method") or "GET").upper()
                request = client.build_request(method, url, headers=headers)
                if authorization.params:
                    request.url = request.url.copy_merge_params(authorization.params)
                secret = tuple(headers)
                with anyio.fail_after(most_s):
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
        return await off_loop(content.size, lambda: decoded(content.take(), place, self._kind))


def _elsewhere(response: httpx.Response) -> str:
    """Return a hint for the error text: the region of the bucket, which S3 names in its answer if a request used the
    wrong region. Return an empty text if there is no hint."""
    region = response.headers.get("x-amz-bucket-region")
    return f" (its bucket is in {region}: give script.source.region)" if region and response.status_code != 404 else ""
