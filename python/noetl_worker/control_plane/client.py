"""Every HTTP call a worker makes to a control plane, for both dialects.

`ControlPlaneClient` owns the transport and the identity; `plane(server_url)` gives the plane that issued one
command: claims and events go back to where the notification came from (wire.md T-34).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from noetl_worker import json_text, redaction
from noetl_worker.control_plane.gate import Gate
from noetl_worker.control_plane.transport import Response, Transport
from noetl_worker.credential_cache import CredentialCache
from noetl_worker.errors import (
    AuthRefused,
    ControlPlaneError,
    CredentialError,
    DocumentError,
    NotSent,
    ServerRefused,
    TransportError,
)
from noetl_worker.models import Dialect, JsonValue
from noetl_worker.retry_pace import RetryPace
from noetl_worker.settings import Settings

__all__ = ["ControlPlaneClient", "Plane", "json_body", "refusal", "retry_after_s"]

_JSON: Final = "application/json"
MAX_SERVERS: Final = 64
"""Server URLs whose dialect is remembered; more than a fleet has, fewer than a flood of made-up ones."""
CONNECTIONS_BESIDE_SLOTS: Final = 8
CLAIM_PATIENCE_S: Final = 1.0
"""A claim that finds no place at its plane goes back to the queue; an outcome waits for as long as it takes."""
_OVERLOADED: Final = frozenset({429, 502, 503, 504})
_KEPT_CHARS: Final = 2000
_STREAMED_BYTES: Final = 1024 * 1024
"""Up to here one copy is cheaper than a body in parts."""
_SLOWEST_BYTES_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Server:
    """How much one plane takes at present, and how it goes with what it refuses."""

    gate: Gate
    store_gate: Gate
    """In front of its result store: one that is away must not hold up claims and events."""
    retry_pace: RetryPace


class ControlPlaneClient:
    """The transport, the bearer token and the timeouts; hands out `Plane`s and knows each server's dialect."""

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self.transport = transport
        self._settings = settings
        self._headers: dict[str, str] = {"content-type": _JSON}
        self._trusted_headers = dict(self._headers)
        if settings.internal_api_token:
            self._trusted_headers["authorization"] = f"Bearer {settings.internal_api_token.reveal()}"
        self.own_secrets: Final = settings.secrets()
        """What a tool can find in this process's environment, and must not tell."""
        self._trusted = tuple(f"{url}/" for url in (settings.server_url, *settings.trusted_servers))
        self._dialects: dict[str, Dialect] = {}
        self._servers: dict[str, _Server] = {}
        self.credential_cache: Final = CredentialCache(ttl_s=settings.credential_ttl_s)
        """Here, because what the plane gives depends on the identity it is asked with."""

    @property
    def timeout_s(self) -> float:
        """For one whole request."""
        return self._settings.http_timeout_s

    async def plane(self, server_url: str) -> Plane:
        """The plane at `server_url` ("" is the configured one), its dialect found out once.

        Raises:
            ControlPlaneError: it cannot be reached, or is neither of the two known ones.
        """
        url = normal_url(server_url) or self._settings.server_url
        dialect = self._dialects.get(url)
        if dialect is None:
            if self._settings.control_plane == "auto":
                dialect = await self._detect(url)
            else:
                dialect = Dialect(self._settings.control_plane)
            if len(self._dialects) >= MAX_SERVERS:
                self._dialects.clear()
            self._dialects[url] = dialect
        return Plane(self, url, dialect)

    async def _detect(self, url: str) -> Dialect:
        """GET /api/health: `version`, `database`, `nats` = Rust; exactly {"status": "ok"} = Python (wire.md 9)."""
        answer = await self.send("GET", f"{url}/api/health", gate=self.server(url).gate, patience_s=CLAIM_PATIENCE_S)
        body: JsonValue = None
        if answer.status == 200:
            body = json_body(answer)
        elif answer.status in (401, 403) or answer.status >= 500 or answer.status == 429:
            raise refusal("GET /api/health", answer)
        if isinstance(body, dict) and {"version", "database", "nats"} <= body.keys():
            return Dialect.RUST
        if body == {"status": "ok"}:
            return Dialect.PYTHON
        raise ControlPlaneError(
            f"{url}/api/health answers {answer.status} {_excerpt(answer.body, 100)}: neither the Python nor the Rust "
            "control plane. Check NOETL_SERVER_URL, or name the dialect with NOETL_CONTROL_PLANE=python or rust"
        )

    async def send(
        self,
        method: str,
        url: str,
        body: JsonValue = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        gate: Gate | None = None,
        patience_s: float | None = None,
    ) -> Response:
        """One request; any status is an answer.

        Args:
            gate: of the plane that is asked; it is told how the request went.
            patience_s: how long the request may wait at the gate; None: for as long as it takes.

        Raises:
            TransportError: no answer; NotSent as well when the gate did not open in time.
        """
        # A notification names its server: the token goes to those that the settings name, not to whoever publishes.
        own = self._trusted_headers if url.startswith(self._trusted) else self._headers
        whole = {**own, **headers} if headers else own
        packed = None if body is None else body if isinstance(body, (bytes, tuple)) else json_text.dumps(body)
        limit_s = timeout_s or self._settings.http_timeout_s
        if gate is None:
            return await self.transport.send(method, url, whole, packed, limit_s)
        if not await gate.enter(patience_s):
            raise NotSent(f"{method} {url}: not sent, the control plane refuses more or is down")
        sent_at = time.monotonic()
        try:
            answer = await self.transport.send(method, url, whole, packed, limit_s)
        except TransportError:
            gate.refused(sent_at)
            raise
        finally:
            gate.leave()
        if answer.status in _OVERLOADED:
            gate.refused(sent_at, retry_after_s(answer))
        else:
            gate.answered(time.monotonic() - sent_at)
        return answer

    def server(self, url: str) -> _Server:
        """What is remembered of the plane at this address."""
        server = self._servers.get(url)
        if server is None:
            if len(self._servers) >= MAX_SERVERS:
                self._servers.clear()
            full = self._settings.max_concurrent + CONNECTIONS_BESIDE_SLOTS
            server = self._servers[url] = _Server(Gate(full), Gate(full), RetryPace())
        return server

    def open_share(self) -> float:
        """How far the gate of the least troubled plane is open, above 0 and at most 1.

        The least: a plane that is down must not hold up the commands of the others.
        """
        return max((server.gate.open_share() for server in self._servers.values()), default=1.0)

    async def close(self) -> None:
        self.credential_cache.clear()
        await self.transport.close()


class Plane:
    """One control plane in its dialect."""

    __slots__ = ("client", "dialect", "gate", "retry_pace", "store_gate", "url")

    def __init__(self, client: ControlPlaneClient, url: str, dialect: Dialect) -> None:
        self.client = client
        self.url = url
        self.dialect = dialect
        server = client.server(url)
        self.gate, self.store_gate, self.retry_pace = server.gate, server.store_gate, server.retry_pace

    # ── commands and events: the answer is read by claim.py and events.py ──

    async def claim(self, event_id: int, worker_id: str) -> Response:
        """POST /api/commands/{event_id}/claim (wire.md 3.2)."""
        url = f"{self.url}/api/commands/{event_id}/claim"
        body = {"worker_id": worker_id}
        return await self.client.send("POST", url, body, gate=self.gate, patience_s=CLAIM_PATIENCE_S)

    async def fetch_command(self, event_id: int) -> Mapping[str, JsonValue]:
        """GET /api/commands/{event_id}: the command without claiming it (wire.md 3.3)."""
        return await self._object("GET", f"/api/commands/{event_id}")

    async def post_events(
        self, path: str, body: JsonValue, headers: Mapping[str, str], *, patience_s: float | None = None
    ) -> Response:
        """POST /api/events or /api/events/batch, as dialects.py built it."""
        url = self.url + path
        return await self.client.send("POST", url, body, headers=headers, gate=self.gate, patience_s=patience_s)

    async def batch_state(self, request_id: str) -> str:
        """accepted, processing, completed or failed (Python plane only)."""
        answer = await self._object("GET", f"/api/events/batch/{quote(request_id, safe='')}/status")
        return str(answer.get("state"))

    async def is_cancelled(self, execution_id: int) -> bool:
        """Only the cancelled flag of the answer can be trusted (wire.md T-37)."""
        answer = await self._object("GET", f"/api/executions/{execution_id}/cancellation-check")
        return bool(answer.get("cancelled", answer.get("is_cancelled", False)))

    async def execute_playbook(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """POST /api/execute {path | catalog_id, payload, parent_execution_id} (wire.md 9.3, item 11)."""
        return await self._object("POST", "/api/execute", dict(body))

    async def catalog_entry(self, catalog_id: str) -> Mapping[str, JsonValue]:
        """A registered resource {path, version, content, payload, ...}; `payload` is the content, parsed."""
        return await self._object("POST", "/api/catalog/resource", {"catalog_id": catalog_id})

    async def execution_status(self, execution_id: int) -> Mapping[str, JsonValue]:
        return await self._object("GET", f"/api/executions/{execution_id}/status")

    # ── variables (wire.md 3.6) ──

    async def get_vars(self, execution_id: int) -> dict[str, JsonValue]:
        """All variables, name -> value, whichever form the plane answers."""
        answer = await self._json("GET", f"/api/vars/{execution_id}")
        if isinstance(answer, list):
            return {row["var_name"]: row.get("var_value") for row in answer}
        return {name: row.get("value") for name, row in answer.get("variables", {}).items()}

    async def get_var(self, execution_id: int, name: str) -> JsonValue:
        """One variable's value; None when there is none."""
        answer = await self._send("GET", f"/api/vars/{execution_id}/{quote(name, safe='')}")
        if answer.status == 404:
            return None
        row = _expect(f"GET variable {name}", answer)
        return row["value"] if "value" in row else row.get("var_value")

    async def set_vars(
        self, execution_id: int, variables: Mapping[str, JsonValue], source_step: str | None = None
    ) -> None:
        """Each plane takes its own form only; the bare object of the published Rust worker is 422 on both."""
        body: dict[str, JsonValue]
        if self.dialect is Dialect.PYTHON:
            body = {"variables": dict(variables), "var_type": "user_defined", "source_step": source_step}
        else:
            rows = [{"var_name": n, "var_value": v, "source_step": source_step} for n, v in variables.items()]
            body = {"variables": rows}
        await self._json("POST", f"/api/vars/{execution_id}", body)

    # ── results and credentials (wire.md 3.8, 3.9) ──

    async def put_result(
        self, execution_id: int, name: str, data: bytes, *, source_step: str
    ) -> Mapping[str, JsonValue]:
        """Store a result; `data` is JSON. Gives {ref, store, scope, bytes, sha256, expires_at}."""
        return _expect("PUT result", await self.store_result(execution_id, name, data, source_step=source_step))

    async def store_result(
        self, execution_id: int, name: str, data: bytes, *, source_step: str, patience_s: float | None = None
    ) -> Response:
        """PUT /api/result/{execution_id}; the answer is read by emitter.py.

        A large one is sent around its bytes as they are: it is in memory once.
        """
        head = json_text.dumps({"name": name, "scope": "execution", "source_step": source_step})[:-1] + b',"data":'
        body = (head, data, b"}") if len(data) > _STREAMED_BYTES else b"".join((head, data, b"}"))
        # The deadline of a small request would cut off a large one on a slow link.
        extra_s = len(data) / _SLOWEST_BYTES_PER_S
        return await self._result_call("PUT", f"/{execution_id}", body, extra_s=extra_s, patience_s=patience_s)

    async def resolve_result(self, ref: str) -> JsonValue:
        """The stored data behind a `noetl://...` reference."""
        answer = await self._result_call("GET", f"/resolve?ref={quote(ref, safe='')}")
        return _expect_json(f"resolving {ref}", answer)

    async def _result_call(
        self,
        method: str,
        path: str,
        body: JsonValue = None,
        *,
        extra_s: float = 0.0,
        patience_s: float | None = None,
    ) -> Response:
        """v4.0.0 of the Python plane mounts the routes at /api/api/result (wire.md T-10): 404 asks the other once.

        Through a gate of its own: a store that is away must not hold up claims and events.
        """

        async def ask(route: str) -> Response:
            limit_s = self.client.timeout_s + extra_s
            url = f"{self.url}{route}{path}"
            gate = self.store_gate
            return await self.client.send(method, url, body, timeout_s=limit_s, gate=gate, patience_s=patience_s)

        answer = await ask("/api/result")
        if answer.status == 404 and self.dialect is Dialect.PYTHON:
            doubled = await ask("/api/api/result")
            return doubled if doubled.status != 404 else answer
        return answer

    async def credential(self, alias: str, execution_id: int | None = None) -> Mapping[str, JsonValue]:
        """The whole record {id, name, type, data, ...}. Raises CredentialError when there is none."""
        path = f"/api/credentials/{quote(alias, safe='')}?include_data=true"
        if execution_id is not None:
            path += f"&execution_id={execution_id}"
        answer = await self._send("GET", path)
        if answer.status == 404:
            raise CredentialError(
                f"no credential {alias!r} on {self.url}: register it with POST /api/credentials, or correct `auth`",
                code="credential_not_found",
            )
        return _expect(f"GET credential {alias}", answer)

    async def keychain(
        self, catalog_id: str, name: str, *, scope: str = "global", execution_id: int | None = None
    ) -> Mapping[str, JsonValue]:
        """A keychain entry; always 200, `status` says success, expired or not_found."""
        path = f"/api/keychain/{catalog_id}/{quote(name, safe='')}?scope_type={scope}"
        if execution_id is not None:
            path += f"&execution_id={execution_id}"
        return await self._object("GET", path)

    # ── registry (wire.md 3.7) ──

    async def register(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        return await self._object("POST", "/api/worker/pool/register", dict(body))

    async def heartbeat(self, name: str) -> bool:
        """False when the plane does not know us (any more): register again."""
        answer = await self._send("POST", "/api/worker/pool/heartbeat", {"name": name})
        if answer.status == 404:
            return False
        _expect("heartbeat", answer)
        return True

    async def deregister(self, name: str) -> None:
        """DELETE with a body, then POST where DELETE is not allowed; never `kind` beside `component_type` (422)."""
        body = {"name": name, "component_type": "worker_pool"}
        answer = await self._send("DELETE", "/api/worker/pool/deregister", body)
        if answer.status == 405:
            answer = await self._send("POST", "/api/worker/pool/deregister", body)
        if answer.status != 404:  # not registered is what was wanted
            _expect("deregister", answer)

    async def _send(self, method: str, path: str, body: JsonValue = None) -> Response:
        return await self.client.send(method, self.url + path, body, timeout_s=self.client.timeout_s, gate=self.gate)

    async def _json(self, method: str, path: str, body: JsonValue = None) -> Any:
        return _expect_json(f"{method} {path}", await self._send(method, path, body))

    async def _object(self, method: str, path: str, body: JsonValue = None) -> Mapping[str, JsonValue]:
        return _expect(f"{method} {path}", await self._send(method, path, body))


def normal_url(url: str) -> str:
    """Without trailing `/` and `/api`, as the planes' own workers do (wire.md 2.3)."""
    url = url.strip().rstrip("/")
    while url.endswith("/api"):
        url = url[: -len("/api")].rstrip("/")
    return url


def json_body(answer: Response) -> JsonValue:
    """The answer's JSON; None for a body that is none (an HTML page of a proxy)."""
    try:
        return json_text.loads(answer.body)
    except DocumentError:
        return None


def retry_after_s(answer: Response) -> float | None:
    """Retry-After in seconds; the planes send whole seconds only (wire.md 3.1)."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), 3600.0) if text.isdigit() else None


def refusal(what: str, answer: Response) -> ServerRefused:
    """The error for an answer that is not the one hoped for."""
    kept = redaction.excerpt(answer.body, _KEPT_CHARS)
    said = f"{what}: {answer.status} {_excerpt(answer.body)}"
    if answer.status in (401, 403):
        return AuthRefused(
            f"{said}. Check NOETL_INTERNAL_API_TOKEN (and NOETL_TLS_CLIENT_CERT)", status=answer.status, body=kept
        )
    return ServerRefused(
        said,
        status=answer.status,
        body=kept,
        retry_after_s=retry_after_s(answer),
    )


def _expect_json(what: str, answer: Response) -> JsonValue:
    if not 200 <= answer.status < 300:
        raise refusal(what, answer)
    try:
        return json_text.loads(answer.body)
    except DocumentError as error:
        raise ControlPlaneError(
            f"{what}: {answer.status} with a body that is not JSON: {_excerpt(answer.body)}"
        ) from error


def _expect(what: str, answer: Response) -> Mapping[str, JsonValue]:
    body = _expect_json(what, answer)
    if not isinstance(body, dict):
        raise ControlPlaneError(f"{what}: expected a JSON object, got {_excerpt(answer.body)}")
    return body


def _excerpt(body: bytes, limit: int = 500) -> str:
    """The body's beginning on one line: it stands inside messages, and a proxy's page has hundreds of lines."""
    text = " ".join(redaction.excerpt(body, _KEPT_CHARS).split())
    return text[:limit] + ("..." if len(text) > limit else "") if text else "(empty)"
