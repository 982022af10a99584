"""Every HTTP call of a worker to a control plane, for both dialects.

`ControlPlaneClient` holds the transport and the credentials. `plane(server_url)` returns the plane that issued a
command. Claims and events go to the server that the notification names (protocol/notification.md#message), if the
settings name this server too (servers.py).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

from noetl_worker.errors import (
    AnswerTooLarge,
    AuthRefused,
    ControlPlaneError,
    CredentialError,
    DocumentError,
    NotSent,
    ServerRefused,
    TransportError,
)
from noetl_worker.models.wire import CommandId, Dialect, JsonValue, context_of, has_next_page, read_events
from noetl_worker.observability import metrics
from noetl_worker.observability.series import Times
from noetl_worker.process.threads import finished_off_loop, off_loop
from noetl_worker.remote.plane.answers import MEANING, Meaning, is_page, retry_after_s
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.remote.plane.health import PlaneHealth, read_health
from noetl_worker.remote.plane.missing_result import missing_result_note
from noetl_worker.remote.plane.python.batch_state import BatchState
from noetl_worker.remote.plane.rules import stored_name
from noetl_worker.remote.plane.servers import Servers
from noetl_worker.remote.transport.transport import Body, Response, Transport, body_size
from noetl_worker.remote.transport.url_path import url_path
from noetl_worker.settings.settings import Settings
from noetl_worker.text import json_text
from noetl_worker.text.secrets import redaction
from noetl_worker.text.secrets.credential_cache import CredentialCache

T = TypeVar("T")
_JSON: Final = "application/json"
_NOTHING: Final[Mapping[str, JsonValue]] = {}
_SENT: Final = metrics.PLANE_REQUESTS.own
"""Counter of requests to planes. Its value is increased directly, since a method call for each would cost time."""
_CLAIM_TIMES, _EVENT_TIMES, _RESULT_TIMES, _REGISTRY_TIMES, _OTHER_TIMES = (
    metrics.PLANE_TIMES.labels(route) for route in metrics.PLANE_ROUTES
)
_SHORTEST_S: Final = metrics.PLANE_TIME_BUCKETS[0]
BEAT_S: Final = 7.0
"""Time limit of a heartbeat request in seconds. With this limit, two unanswered heartbeats in a row end within 30 s."""
CLAIM_PATIENCE_S: Final = 1.0
"""Longest time in seconds for which a claim waits until the limit on concurrent requests (gate.py) lets it pass. After
this wait the worker returns the message to the stream. The report of an outcome waits without a limit."""
_EXCERPT_CHARS: Final = 2000
_STREAMED_BYTES: Final = 1024 * 1024
"""Largest request body, in bytes, that is joined into one bytes object. A larger body is sent in parts, uncopied."""
_SLOWEST_BYTES_PER_S: Final = 1_000_000
_CLAIM_PAGE: Final = 200
_CLAIM_PAGES: Final = 10
"""Largest number of pages of events that are read to count a command's claims. Together the pages have the newest 2,000
claims of the execution."""


class ControlPlaneClient:
    """Client of all control planes: transport, bearer token and timeouts, with a `Plane` for each server."""

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        *,
        servers: Servers | None = None,
        on_auth_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a client of all planes. `on_auth_refused` is called if the configured plane refuses the login."""
        self.transport, self._settings, self._on_auth_refused = transport, settings, on_auth_refused
        self.timeout_s: Final = settings.http_timeout_s
        """Time limit of one complete request."""
        self._headers: dict[str, str] = {"content-type": _JSON}
        self._trusted_headers = dict(self._headers)
        if settings.internal_api_token:
            self._trusted_headers["authorization"] = f"Bearer {settings.internal_api_token.reveal()}"
        self.own_secrets: Final = settings.secrets()
        """Secrets that a tool can find in this process's environment, and must not disclose."""
        self.credentials_allow: Final = settings.credentials_allow
        """Patterns of the credential aliases that playbooks may use. The key is a pattern of playbook paths. None
        allows all aliases."""
        self.servers: Final = servers or Servers(settings)
        self._planes: dict[str, Plane] = {}
        self.credential_cache: Final = CredentialCache()
        """Cache of the credentials that the planes gave to this client."""
        self.weak_secrets: Final[set[tuple[str, str]]] = set()
        """Credentials and keychain entries about which `credentials.py` has logged a warning: their secret is too short
        or too common to be redacted. The warning is logged once for each."""

    async def plane(self, server_url: str) -> Plane:
        """Return the plane for a notification. `server_url` is the server in the notification, or "" if no server is
        named.

        The dialect of a plane is determined at the first call.

        Raises:
            AuthRefused: the plane refuses the credentials, or refused them in the last AUTH_PAUSE_S seconds.
            ControlPlaneError: the plane cannot be reached, or the server is no control plane.
        """
        url = self.servers.choose_url(server_url)
        if url in self.servers.paused and (left_s := self.servers.pause_left_s(url)) > 0:
            text = f"{url} refused the credentials: check NOETL_INTERNAL_API_TOKEN; asked again in {left_s:.0f} s"
            raise AuthRefused(text, status=401, body="")
        if url not in self._planes:
            self._planes[url] = Plane(self, url, await self._find_dialect(url))
        return self._planes[url]

    def auth_refused(self, url: str) -> None:
        """Handle a 401 or 403. For the configured plane, stop pulling commands. For another plane, pause its claims."""
        if url == self.servers.configured:
            self._on_auth_refused()
        else:
            self.servers.pause(url)

    async def _find_dialect(self, url: str) -> Dialect:
        if self._settings.control_plane != "auto":
            return Dialect(self._settings.control_plane)
        try:
            found = await self.health(url, gate=self.servers.server_at(url).gate)
        except AuthRefused:
            self.auth_refused(url)
            raise
        return found.dialect

    async def health(self, url: str, *, gate: Gate | None = None, timeout_s: float | None = None) -> PlaneHealth:
        """Return the health that the plane at this URL reports.

        Raises:
            ControlPlaneError: the plane cannot be reached or refuses, or the server is no control plane.
        """
        answer = await self.send(
            "GET", f"{url}/api/health", timeout_s=timeout_s, gate=gate, patience_s=CLAIM_PATIENCE_S
        )
        if answer.status >= 400 and MEANING[answer.status] is not Meaning.REFUSED:
            raise refusal("GET /api/health", answer)
        found = read_health(answer.json()) if answer.status == 200 else None
        if found is None:
            raise ControlPlaneError(
                f"{url}/api/health answers {answer.status} {_excerpt(answer.body, 100)}: neither the Python nor the "
                "Rust control plane. Check NOETL_SERVER_URL, or name the dialect with NOETL_CONTROL_PLANE=python or "
                "rust"
            )
        return found

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
        on_sent: Callable[[], None] | None = None,
        times: Times = _OTHER_TIMES,
        is_stored: Callable[[Response], bool] = lambda _: False,
    ) -> Response:
        """Send a request and return its answer, whatever the status.

        Args:
            headers: headers to send instead of the usual headers for this URL.
            gate: limit on concurrent requests (gate.py). The request waits at the gate, and the gate notes the answer.
            patience_s: longest wait at the gate in seconds; None: without limit.
            on_sent: called when the gate lets the request pass. From then on only `timeout_s` limits its time.
            times: histogram of the route's request times, for requests with a gate.
            is_stored: returns whether a server error says that the plane has stored the request before.

        Raises:
            TransportError: no answer came. NotSent is raised also if the wait at the gate took over `patience_s`.
        """
        _SENT.value += 1
        all_headers = headers or self.headers_for(url)
        packed = body if type(body) is bytes else _packed(body)
        if timeout_s is None and on_sent is None:
            is_large = packed is not None and (type(packed) is tuple or len(packed) > _STREAMED_BYTES)
            timeout_s = self.timeout_s + (_transfer_s(packed) if is_large else 0.0)
        if gate is None:
            return await self.transport.send(method, url, all_headers, packed, timeout_s)
        if not (gate.try_enter() or await gate.enter(patience_s)):
            raise NotSent(f"the worker did not send {method} {url}: the plane refuses more requests or is down")
        if on_sent is not None:
            gate.leave()
            on_sent()
        sent_at = time.monotonic()
        try:
            answer = await self.transport.send(method, url, all_headers, packed, timeout_s)
        except AnswerTooLarge:  # the plane is up
            gate.answered(None)
            raise
        except TransportError:
            gate.refused(sent_at, is_outage=True)
            raise
        finally:
            if on_sent is None:
                gate.leave()
        took_s = time.monotonic() - sent_at if on_sent is None else None
        if took_s is not None:  # written out, since a call would cost time for each request
            times.counts[0 if took_s <= _SHORTEST_S else bisect_left(metrics.PLANE_TIME_BUCKETS, took_s)] += 1
            times.sum += took_s
        if answer.status < 400 and not gate.failing:
            gate.answered(took_s)
        else:
            gate.note_answer(answer, sent_at, took_s, is_stored=is_stored(answer))
        return answer

    def headers_for(self, url: str) -> Mapping[str, str]:
        """Return the usual headers of a request to this URL. They have the bearer token if the server may get it."""
        return self._trusted_headers if self.servers.gets_token(url) else self._headers

    async def __aenter__(self) -> ControlPlaneClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.credential_cache.clear()
        await self.transport.close()


class Plane:
    """Client of one control plane, with the rules of its dialect."""

    __slots__ = ("_headers", "client", "dialect", "gate", "retry_pace", "rules", "server", "store_gate", "url")

    def __init__(self, client: ControlPlaneClient, url: str, dialect: Dialect) -> None:
        self.client = client
        self.url = url
        self.dialect, self.rules = dialect, RULES[dialect]
        self._headers = client.headers_for(f"{url}/")
        self.server = server = client.servers.server_at(url)
        self.gate, self.store_gate, self.retry_pace = server.gate, server.store_gate, server.retry_pace

    # ── commands and events: the answer is read by claim.py and events.py ──

    def claim(self, event_id: int, worker_id: str) -> Awaitable[Response]:
        """Claim a command: POST /api/commands/{event_id}/claim (protocol/claim.md#leases)."""
        url, body = self.url + url_path("api", "commands", event_id, "claim"), _claim_body(worker_id)
        patience_s = CLAIM_PATIENCE_S
        if self.gate.is_down and self.client.servers.capacity_fraction() > self.gate.capacity_fraction():
            patience_s = 0.0  # leave the slot to commands of other planes
        return self.client.send(
            "POST", url, body, headers=self._headers, gate=self.gate, patience_s=patience_s, times=_CLAIM_TIMES
        )

    async def fetch_command(self, event_id: int) -> Mapping[str, JsonValue]:
        """Return a command without claiming it: GET /api/commands/{event_id} (protocol/claim.md#fetch)."""
        return await self._object("GET", url_path("api", "commands", event_id))

    def post_events(self, path: str, body: bytes, headers: Mapping[str, str], **options: Any) -> Awaitable[Response]:
        """Send a POST with events to `path`. event_set.py wrote the body; `options` are further arguments of `send`.

        In some of these requests the plane issues the next commands. If such a request is cut off, the plane drops the
        next commands (protocol/events.md#rust-plane). So such a request needs `on_sent`, which removes the usual time
        limit.
        """
        options |= {"headers": {**self._headers, **headers}, "is_stored": self.rules.is_stored}
        return self.client.send("POST", self.url + path, body, gate=self.gate, times=_EVENT_TIMES, **options)

    async def batch_state(self, request_id: str) -> BatchState:
        """Return the state of a batch of events. Python plane only."""
        return BatchState.read(await self._object("GET", url_path("api", "events", "batch", request_id, "status")))

    async def is_cancelled(self, execution_id: int) -> bool:
        """Return whether an execution is cancelled (protocol/executions.md#cancellation)."""
        answer = await self._object("GET", url_path("api", "executions", execution_id, "cancellation-check"))
        return bool(answer.get("cancelled", answer.get("is_cancelled", False)))

    async def execute_playbook(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Start an execution from {path or catalog_id, payload, parent_execution_id}. Return the plane's answer."""
        return await self._object("POST", "/api/execute", dict(body))

    async def catalog_entry(self, catalog_id: str) -> Mapping[str, JsonValue]:
        """Return the resource {path, version, content, ...} with this id from the plane's catalog. `rules.playbook_in`
        reads the playbook from the resource."""
        return await self._object("POST", "/api/catalog/resource", {"catalog_id": catalog_id})

    async def execution_status(self, execution_id: int) -> Mapping[str, JsonValue]:
        return await self._object("GET", url_path("api", "executions", execution_id, "status"))

    async def execution_detail(self, execution_id: int) -> Mapping[str, JsonValue]:
        """Return an execution with all its events (Rust plane) or its newest page of events (Python plane)."""
        return await self._object("GET", url_path("api", "executions", execution_id))

    async def list_events(self, execution_id: int, **query: str | int) -> Mapping[str, JsonValue]:
        """Return a page of events, newest first. `query` may have event_type, page, page_size. Python plane only."""
        return await self._object("GET", url_path("api", "executions", execution_id, "events", **query))

    async def count_claims(self, execution_id: int, command_id: CommandId, most: int) -> int:
        """Return how often a command was claimed, but at most `most`. Only the newest claims of the execution are
        counted. Python plane only."""
        count = 0
        query: dict[str, str | int] = {"event_type": "command.claimed", "page_size": _CLAIM_PAGE}
        for page in range(1, _CLAIM_PAGES + 1):
            answer = await self.list_events(execution_id, **query, page=page)
            count += sum(str(context_of(event).get("command_id")) == str(command_id) for event in read_events(answer))
            if count >= most or not has_next_page(answer):
                break
        return min(count, most)

    # ── variables (protocol/executions.md#variables) ──

    async def get_var(self, execution_id: int, name: str) -> JsonValue:
        """Return the value of a variable, or None if the variable does not exist."""
        row = await if_there(self._object("GET", url_path("api", "vars", execution_id, name))) or {}
        return row["value"] if "value" in row else row.get("var_value")

    async def set_vars(
        self, execution_id: int, variables: Mapping[str, JsonValue], source_step: str | None = None
    ) -> None:
        """Set variables of an execution. The layout of the request's body depends on the plane's dialect."""
        path = url_path("api", "vars", execution_id)
        _expect_json(f"POST {path}", await self._send("POST", path, self.rules.variables_body(variables, source_step)))

    # ── results and credentials (protocol/executions.md#credentials) ──

    async def put_result(
        self, execution_id: int, name: str, data: bytes, *, source_step: str
    ) -> Mapping[str, JsonValue]:
        """Store a tool's JSON in the result store, and return {ref, store, scope, bytes, sha256, expires_at}."""
        data = await finished_off_loop(partial(self.rules.store_form, data))
        return _expect("PUT result", await self.store_result(execution_id, name, data, source_step=source_step))

    async def store_result(
        self, execution_id: int, name: str, data: bytes, *, source_step: str, patience_s: float | None = None
    ) -> Response:
        """Send PUT /api/result/{execution_id}, without copying a large result. The caller reads the answer."""
        fields = {"name": stored_name(name), "source_step": source_step, **self.rules.store_fields}
        head = json_text.dumps(fields)[:-1] + b',"data":'
        body = (head, data, b"}") if len(data) > _STREAMED_BYTES else b"".join((head, data, b"}"))
        path, extra_s = url_path(execution_id), max(self.rules.storing_s(len(data)), _transfer_s(body))
        if not self.rules.is_stored_alone(data):
            return await self._result_call("PUT", path, body, extra_s=extra_s, patience_s=patience_s)
        async with self.server.large_result_gate.place(patience_s) as left_s:
            return await self._result_call("PUT", path, body, extra_s=extra_s, patience_s=left_s)

    async def stored_result(self, ref: str, said: Mapping[str, JsonValue] = _NOTHING) -> tuple[JsonValue, bytes]:
        """Return the value that a `noetl://...` reference names, and the JSON of this value.

        Args:
            said: object with `ref`. If the result is missing, the error quotes this object's storing or expiry time.
        """
        path = url_path("resolve", ref=ref)
        answer = await self._result_call("GET", path)
        if self.rules.has_expired(answer):
            answer = await self._result_call("GET", path)
        what = f"resolving {ref}{missing_result_note(answer, said, self.rules)}"
        found = await off_loop(len(answer.body), partial(_expect_json, what, answer))
        if not self.rules.is_packed(answer.body):
            return found, answer.body
        whole = await finished_off_loop(partial(self.rules.whole_result, answer.body))
        return await off_loop(len(whole), partial(json_text.loads, whole)), whole

    async def _result_call(
        self,
        method: str,
        path: str,
        body: JsonValue = None,
        *,
        extra_s: float = 0.0,
        patience_s: float | None = None,
    ) -> Response:
        """Send a request to the result store, which has its own limit on concurrent requests (gate.py). So an outage of
        the store does not hold up claims and events.

        The path of the store differs between versions of the Python plane. The path at which this server's store
        answered last is tried first.
        """
        limit_s, server = self.client.timeout_s + extra_s, self.server
        options: dict[str, Any] = {"timeout_s": limit_s, "patience_s": patience_s, "times": _RESULT_TIMES}
        for route in sorted(self.rules.store_routes, key=lambda one: one != server.store_route):
            answer = await self.client.send(method, f"{self.url}{route}{path}", body, gate=self.store_gate, **options)
            if not self.rules.is_no_route(answer):
                server.store_route = route
                break
        return answer

    async def credential(self, alias: str, execution_id: int | None = None) -> Mapping[str, JsonValue]:
        """Return the credential {id, name, type, data, ...} with this alias. Raise CredentialError if the plane has no
        such credential."""
        path = url_path("api", "credentials", alias, include_data="true", execution_id=execution_id)
        found = await if_there(self._object("GET", path))
        if found is None:
            raise CredentialError(
                f"no credential {alias!r} on {self.url}: register it with POST /api/credentials, or correct `auth`",
                code="credential_not_found",
            )
        return found

    async def keychain(
        self, catalog_id: str, name: str, *, scope: str = "global", execution_id: int | None = None
    ) -> Mapping[str, JsonValue]:
        """Return a keychain entry. The plane always answers 200; the entry's `status` is success, expired or
        not_found."""
        path = url_path("api", "keychain", catalog_id, name, scope_type=scope, execution_id=execution_id)
        return await self._object("GET", path)

    # ── registry (protocol/registry.md#registration) ──

    async def register(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        return await self._beat("register", dict(body))

    async def heartbeat(self, name: str) -> bool:
        """Send a heartbeat. Return False if the plane does not know this worker, which then must register again."""
        return await if_there(self._beat("heartbeat", {"name": name})) is not None

    async def _beat(self, what: str, body: JsonValue) -> Mapping[str, JsonValue]:
        url, limit_s = self.url + url_path("api", "worker", "pool", what), min(self.client.timeout_s, BEAT_S)
        answer = self.client.send("POST", url, body, timeout_s=limit_s, gate=self.gate, times=_REGISTRY_TIMES)
        return _expect(what, await answer)

    async def deregister(self, name: str) -> None:
        """Remove a worker's entry from the plane's registry. If the entry is already gone, do nothing."""
        # With `kind` beside `component_type` the planes answer 422.
        body = {"name": name, "component_type": "worker_pool"}
        await if_there(self._object("DELETE", "/api/worker/pool/deregister", body))

    async def _send(self, method: str, path: str, body: JsonValue = None) -> Response:
        return await self.client.send(method, self.url + path, body, timeout_s=self.client.timeout_s, gate=self.gate)

    async def _object(self, method: str, path: str, body: JsonValue = None) -> Mapping[str, JsonValue]:
        return _expect(f"{method} {path}", await self._send(method, path, body))


async def if_there(asked: Awaitable[T]) -> T | None:
    """Return the answer to a request. Return None if the plane says that the requested object does not exist. A proxy's
    404 is raised as an error."""
    try:
        return await asked
    except ServerRefused as refused:
        if refused.is_not_found:
            return None
        raise


def _packed(body: JsonValue) -> Body | None:
    return None if body is None else body if isinstance(body, (bytes, tuple)) else json_text.dumps(body)


def _transfer_s(packed: Body | None) -> float:
    """Return the seconds by which a large request's time limit is extended, or 0 for a small request."""
    size = 0 if packed is None else len(packed) if isinstance(packed, bytes) else body_size(packed)
    return size / _SLOWEST_BYTES_PER_S if size > _STREAMED_BYTES else 0.0


def refusal(what: str, answer: Response) -> ServerRefused:
    """Return the error for an answer that refuses a request. `what` names the request in the error text."""
    body = redaction.excerpt(answer.body, _EXCERPT_CHARS)
    text = f"{what}: {answer.status} {_excerpt(answer.body)}"
    if MEANING[answer.status] is Meaning.AUTH:
        return AuthRefused(
            f"{text}. Check NOETL_INTERNAL_API_TOKEN (and NOETL_TLS_CLIENT_CERT)", status=answer.status, body=body
        )
    # Only a 404: a 400, 415 or 422 without JSON is the Rust plane's own (protocol/claim.md#statuses).
    is_proxys = answer.status == 404 and is_page(answer)
    return ServerRefused(text, status=answer.status, body=body, retry_after_s=retry_after_s(answer), is_page=is_proxys)


@lru_cache(maxsize=8)
def _claim_body(worker_id: str) -> bytes:
    return json_text.dumps({"worker_id": worker_id})


def _expect_json(what: str, answer: Response) -> JsonValue:
    if MEANING[answer.status] is not Meaning.ACCEPTED:
        raise refusal(what, answer)
    try:
        return json_text.loads(answer.body)
    except DocumentError as error:
        raise ControlPlaneError(
            f"{what}: {answer.status} with a body that is not JSON, perhaps a proxy's: {_excerpt(answer.body)}; check "
            "that the URL is a control plane's"
        ) from error


def _expect(what: str, answer: Response) -> Mapping[str, JsonValue]:
    body = _expect_json(what, answer)
    if not isinstance(body, dict):
        raise ControlPlaneError(
            f"{what}: expected a JSON object, got {_excerpt(answer.body)}; check that the URL is a control plane's"
        )
    return body


def _excerpt(body: bytes, limit: int = 500) -> str:
    """Return the beginning of a body on one line, for the text of an error: a proxy's page has hundreds of lines."""
    text = " ".join(redaction.excerpt(body, _EXCERPT_CHARS).split())
    return text[:limit] + ("..." if len(text) > limit else "") if text else "(empty)"
