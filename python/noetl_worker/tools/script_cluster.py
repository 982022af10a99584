"""The Kubernetes API as the `script` kind needs it: create, read, delete, logs, over the pooled HTTP client.

A worker in a cluster finds the API by itself (KUBERNETES_SERVICE_HOST, the service account's files); elsewhere the kind
is refused. No client library: these are five requests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from noetl_worker.errors import ConfigurationError, DocumentError, ToolError
from noetl_worker.json_text import dumps, loads
from noetl_worker.models import JsonValue
from noetl_worker.tools.http_answer import kind_of, read
from noetl_worker.tools.http_client import ClientOptions, Clients

__all__ = ["ACCOUNT_FILES", "Cluster"]

ACCOUNT_FILES: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
MAX_LOG_BYTES: Final = 1 << 20
_MAX_ANSWER: Final = 8 << 20
_TIMEOUT: Final = httpx.Timeout(30.0)


class Cluster:
    """The API of the cluster that the worker runs in.

    Args:
        account: the directory with the service account's `token` and `ca.crt`; the token is read at each request,
            since the kubelet changes it every hour.
    """

    def __init__(self, clients: Clients, account: str | Path = ACCOUNT_FILES) -> None:
        self._clients = clients
        self._account = Path(account)

    async def create(self, path: str, body: Mapping[str, JsonValue]) -> Mapping[str, Any] | None:
        """The created object; None when there is one of that name already."""
        answer = await self._request("POST", path, body=body, allowed=(409,))
        return None if answer.get("code") == 409 and answer.get("kind") == "Status" else answer

    async def get(self, path: str, **params: str) -> Mapping[str, Any]:
        return await self._request("GET", path, params=params)

    async def delete(self, path: str) -> None:
        """Delete it and, in the background, what belongs to it; nothing when it is gone already."""
        await self._request("DELETE", path, params={"propagationPolicy": "Background"}, allowed=(404,))

    async def log(self, namespace: str, pod: str) -> str:
        """The end of a pod's output, at most 1 MiB of it."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        response, data = await self._send("GET", path, {"limitBytes": str(MAX_LOG_BYTES), "tailLines": "20000"}, None)
        if not response.is_success:
            raise _refused("GET", path, response.status_code, data)
        return data.decode("utf-8", "replace")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, JsonValue] | None = None,
        allowed: tuple[int, ...] = (),
    ) -> Mapping[str, Any]:
        response, data = await self._send(method, path, params or {}, body)
        if not response.is_success and response.status_code not in allowed:
            raise _refused(method, path, response.status_code, data)
        try:
            answer = loads(data)
        except DocumentError as error:
            raise ToolError(f"script: {method} {path}: the answer is no JSON", kind="parse", retryable=True) from error
        return answer if isinstance(answer, dict) else {}

    async def _send(
        self, method: str, path: str, params: Mapping[str, str], body: Mapping[str, JsonValue] | None
    ) -> tuple[httpx.Response, bytes]:
        base, token = self._address(), self._token()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = None if body is None else dumps(dict(body))
        options = ClientOptions(ca_file=str(self._account / "ca.crt"))
        try:
            async with self._clients.lease(options) as client:
                request = client.build_request(
                    method, base + path, params=dict(params), headers=headers, content=content, timeout=_TIMEOUT
                )
                response = await client.send(request, stream=True)
                answer = await read(response, _MAX_ANSWER)
        except (httpx.HTTPError, OSError) as error:
            text = f"script: {method} {path}: {type(error).__name__}: {error}"
            raise ToolError(text, kind="connection", retryable=True) from error
        return response, answer.take()

    def _address(self) -> str:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ConfigurationError(
                "script: it runs as a Kubernetes Job, and this worker is in no cluster (KUBERNETES_SERVICE_HOST is not "
                "set); use the python kind with the same `script` to run it here"
            )
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    def _token(self) -> str:
        try:
            return (self._account / "token").read_text().strip()
        except OSError as error:
            raise ConfigurationError(
                f"script: the service account's token cannot be read ({error.strerror}); set "
                "automountServiceAccountToken for the worker's pod"
            ) from error


def _refused(method: str, path: str, status: int, data: bytes) -> ToolError:
    """The API's own message, with the kind of its status."""
    try:
        answer = loads(data)
    except DocumentError:
        answer = None
    message = answer.get("message") if isinstance(answer, dict) else None
    kind, retryable = kind_of(status)
    text = f"script: {method} {path}: HTTP {status}: {str(message or data[:200].decode('utf-8', 'replace'))[:500]}"
    return ToolError(text, kind=kind, retryable=retryable, code=str(status))
