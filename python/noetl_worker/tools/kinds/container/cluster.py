"""Calls to the Kubernetes HTTP API, for the tools that make Jobs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
import httpx

from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import off_loop
from noetl_worker.remote.transport.url_path import url_path
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.credential import credential_data, written_data
from noetl_worker.tools.error_kinds import http_failure
from noetl_worker.tools.fields import drop_half_at_end
from noetl_worker.tools.http.answer import object_in, read
from noetl_worker.tools.http.client import ClientOptions, Clients
from noetl_worker.tools.kinds.container.container_job import objects_in
from noetl_worker.tools.process.shortage import before_any_effect, raise_shortage

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NO_URL: Final = "the credential needs 'url', the address of the Kubernetes API"
_CALL_TIMEOUT_S: Final = 30.0
_CLEAN_UP_S: Final = 4.0
_MAX_ANSWER: Final = 4 * 1024 * 1024
GONE: Final = "404"
"""Code of the ToolError for an object that does not exist in the cluster: the HTTP status as text. If the API does not
answer, the code is an exception's name instead, such as `ConnectError`."""
_THERE_ALREADY: Final = "409"


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """The address of a cluster's API, and the token and TLS options with which the worker calls this API."""

    url: str
    token: str | None = field(repr=False)
    options: ClientOptions
    settings: ToolSettings


def check_auth(auth: str | Mapping[str, Any] | None) -> None:
    """Check an `auth` whose values are written in the step, for the `__post_init__` of a config model. An alias is not
    checked here, because its credential is fetched later.

    Raises:
        ConfigurationError: `auth` has no address of a cluster.
    """
    written = written_data(auth)
    if auth is not None and written is not None and not _url(written):
        raise ConfigurationError(_NO_URL, field="auth")


async def cluster_address(
    auth: str | Mapping[str, JsonValue] | None, context: ToolContext, service_account: Path
) -> ClusterAddress:
    """Return the API address and login of the cluster in the credential `auth` ({"url", "token", "ca_file", "verify"}).
    Without `auth`, use the cluster in which the worker runs.

    Raises:
        CredentialError: the credential has no url.
        ConfigurationError: no credential is given, and the worker runs in no cluster.
    """
    kind = context.kind
    if auth is not None:
        found = await credential_data(kind, auth, context)
        url = _url(found)
        if not url:
            raise CredentialError(f"{kind}: {_NO_URL}")
        ca_file = found.get("ca_file")
        options = ClientOptions(
            verify=bool(found.get("verify", True)), ca_file=None if ca_file is None else str(ca_file)
        )
        token = None if found.get("token") is None else str(found["token"])
        return ClusterAddress(url.rstrip("/"), token, options, context.settings)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        token = (await asyncio.to_thread((service_account / "token").read_text, "utf-8")).strip()
    except OSError as error:
        raise_shortage("to read the service account's token", error)
        token = ""  # outside a cluster there is no such file
    if not host or not token:
        raise ConfigurationError(
            f"{kind}: the worker runs in no Kubernetes cluster (or without a service account): give 'auth' with the "
            "alias of a credential with url and token, or run the program with the shell or python tool"
        )
    context.secrets.keep(token)
    shown_host = f"[{host}]" if ":" in host else host
    options = ClientOptions(ca_file=str(service_account / "ca.crt"), is_own=True)
    return ClusterAddress(f"https://{shown_host}:{port}", token, options, context.settings)


def _url(found: Mapping[str, Any]) -> str:
    """Return the http(s) address in a credential's data, or an empty text if the data has no such address."""
    url = next((str(found[name]) for name in ("url", "server", "host") if found.get(name)), "")
    return url if url.startswith(("https://", "http://")) else ""


def _job(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the Kubernetes API's answer unchanged if it has the form of a Job. Raise ToolError otherwise: then a proxy
    may have answered."""
    metadata = answer.get("metadata")
    if not isinstance(metadata, Mapping) or not {"name", "uid"} <= metadata.keys():
        text = "the Kubernetes API answers with an object that is no Job: check that no proxy answers at its address"
        raise ToolError(text, kind="parse")
    return answer


class ClusterTool:
    """Base class of the tools that run Kubernetes Jobs. Holds the HTTP connections and the directory with the token of
    the worker's own service account."""

    first_poll_s: ClassVar[float]
    """Seconds before the tool first asks for the state of a new Job."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        service_account: Path = SERVICE_ACCOUNT,
        first_poll_s: float | None = None,
    ) -> None:
        self._clients, self._service_account = Clients(transport), service_account
        self._first_poll_s = self.first_poll_s if first_poll_s is None else first_poll_s

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()


class Cluster:
    """Calls to the Kubernetes API about one namespace of a cluster."""

    def __init__(self, clients: Clients, place: ClusterAddress, namespace: str) -> None:
        self._clients = clients
        self._place = place
        self._jobs = url_path("apis", "batch", "v1", "namespaces", namespace, "jobs")
        self._core = url_path("api", "v1", "namespaces", namespace)
        self._pods = self._core + url_path("pods")

    async def create(self, job: Mapping[str, JsonValue]) -> Mapping[str, Any]:
        """Create the Job, or find the existing Job of the same name. Return the cluster's copy of the Job."""
        with before_any_effect("to connect to the cluster"):
            made = await _none_for(_THERE_ALREADY, self._object("POST", self._jobs, job))
            return _job(made) if made is not None else await self.job(job["metadata"]["name"])

    async def create_beside(self, resource: str, manifest: Mapping[str, JsonValue]) -> None:
        """Create a ConfigMap or Secret that the Job needs, unless it exists. `resource` is `configmaps` or
        `secrets`."""
        await _none_for(_THERE_ALREADY, self._object("POST", self._core + url_path(resource), dict(manifest)))

    async def job(self, name: str) -> Mapping[str, Any]:
        return _job(await self._object("GET", self._jobs + url_path(name)))

    async def pods(self, name: str) -> list[Mapping[str, Any]]:
        """Return the pods of a Job."""
        answer = await self._object("GET", self._pods + url_path(labelSelector=f"job-name={name}"))
        return objects_in(answer.get("items"))

    async def log(self, pod: str, container: str, max_bytes: int) -> str:
        """Return the first `max_bytes` of the container's output."""
        path = self._pods + url_path(pod, "log", container=container, limitBytes=max_bytes)
        content = await self._send("GET", path, None, max_bytes)
        if len(content) >= max_bytes:  # the output may end within a secret, and half a secret would not be redacted
            content = drop_half_at_end(content)
        return content.decode("utf-8", "replace")

    async def delete(self, name: str) -> None:
        """Delete the Job and its pods. A Job that is already gone is not an error."""
        await _none_for(GONE, self._object("DELETE", self._jobs + url_path(name, propagationPolicy="Background")))

    async def delete_whatever_comes(self, name: str) -> str | None:
        """Delete the Job, even while the calling asyncio task is being cancelled. Return the problem if the deletion
        failed, else None.

        Wait a few seconds at most. If the deletion fails, the Job's activeDeadlineSeconds ends the Job later.
        """
        deleting = asyncio.ensure_future(self.delete(name))
        ends = time.monotonic() + _CLEAN_UP_S
        while not deleting.done() and (left_s := ends - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({deleting}, timeout=left_s)
        if not deleting.done():
            deleting.cancel()
            await asyncio.wait({deleting})
        problem = "no answer" if deleting.cancelled() else deleting.exception()
        return None if problem is None else str(problem)

    async def _object(self, method: str, path: str, body: JsonValue = None) -> Mapping[str, Any]:
        got = await self._send(method, path, body, _MAX_ANSWER)
        answer = await off_loop(len(got), partial(object_in, got))
        if answer is None:
            raise ToolError(
                f"the Kubernetes API answers {method} {path} with no JSON object: check that no proxy answers at its "
                "address",
                kind="parse",
            )
        return answer

    async def _send(self, method: str, path: str, body: JsonValue, limit: int) -> bytes:
        headers = {"Accept": "application/json, */*"}
        if self._place.token:
            headers["Authorization"] = f"Bearer {self._place.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        content = None if body is None else dumps(body)
        request = httpx.Request(method, self._place.url + path, headers=headers, content=content)
        try:
            async with self._clients.lease(
                self._place.options, to=self._place.url, settings=self._place.settings
            ) as client:
                # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that arrives as the call finishes
                with anyio.fail_after(_CALL_TIMEOUT_S):
                    response = await client.send(request, stream=True)
                    got = (await read(response, limit)).take()
        except (httpx.HTTPError, TimeoutError) as error:
            text = f"the Kubernetes API at {self._place.url} does not answer: {type(error).__name__}: {error}"
            raise ToolError(text, kind="connection", retryable=True, code=type(error).__name__) from error
        if not response.is_success:
            status = response.status_code
            message = f"the Kubernetes API refuses {method} {path.partition('?')[0]}: HTTP {status}"
            status_object = await off_loop(len(got), partial(object_in, got)) or {}
            if reason := status_object.get("message"):
                message += f" ({reason})"
            raise http_failure(message, status)
        return got


async def _none_for(code: str, answer: Awaitable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Await a call to the Kubernetes API and return its answer. Return None if the call fails with the code `code`
    (`404`: the object does not exist)."""
    try:
        return await answer
    except ToolError as error:
        if error.code != code:
            raise
        return None
