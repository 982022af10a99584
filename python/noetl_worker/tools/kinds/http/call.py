"""A call of the `http` tool: its requests, repeated after failures or for further pages, under one deadline."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, Final

import anyio
import httpx

from noetl_worker.errors import ConfigurationError, CredentialError, TemplateError, ToolError
from noetl_worker.models.tool_result import ToolFailure, ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.process.room import room
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.http.answer import answer_result, part_at, read, retry_after_s
from noetl_worker.tools.http.auth import Authorization, Authorizer
from noetl_worker.tools.http.client import Clients, is_secret, send, shown, without_user
from noetl_worker.tools.http.secret_hosts import Destination
from noetl_worker.tools.kinds.http import retry as http_retry
from noetl_worker.tools.kinds.http.http_fields import HttpFields
from noetl_worker.tools.kinds.http.request import FileParts, build
from noetl_worker.tools.process import live_output
from noetl_worker.tools.process.shortage import before_any_effect, raise_shortage

ATTEMPT_TIMEOUT_S: Final = 60.0
_TOKEN_CALL: Final = re.compile(r"\btoken\(([^()]+)\)")
_TOKENS_NAME: Final = "noetl_tokens_"
_NO_AUTHORIZATION: Final = Authorization()


class HttpCall:
    """All requests of one `http` step, with retries and further pages.

    `run` returns the result of the last exchange (a request and its answer). The result's data has `attempts` (number
    of exchanges) after more than one exchange, and `pages` (number of pages) if `retry` asks for pages.
    """

    def __init__(self, config: HttpFields, context: ToolContext, clients: Clients, authorizer: Authorizer) -> None:
        self._config = config
        self._context = context
        self._clients = clients
        self._authorizer = authorizer
        self._plan = http_retry.parse(config.retry)
        self._total_s = context.timeout_s
        self._deadline = None if self._total_s is None else time.monotonic() + self._total_s
        self._headers: dict[str, JsonValue] = {}
        self._token_headers: list[str] = []
        """Names of the headers with a bearer token from `token(alias)`. A redirect to another host leaves these headers
        out."""
        self._first_headers = self._headers
        self._received = 0
        self._exchanges = 0
        self._has_connected = False
        """True once a server may have received a request of this call. From then on, a lack of descriptors or memory on
        this machine fails the command. Before, the command is returned to the stream."""

    async def run(self) -> ToolResult:
        self._first_headers = self._headers = await self._rendered_headers()
        if self._plan.pages is not None:
            result = await self._paged(self._plan.pages)
        elif self._plan.rules:
            result, _ = await self._exchange_with_retries(self._config, {})
        else:
            return await self._exchange(self._config)
        if self._exchanges == 1:
            return result
        return dataclasses.replace(result, data={**fields_of(result.data), "attempts": self._exchanges})

    # ── retries ──

    async def _exchange_with_retries(
        self, config: HttpFields, names: Mapping[str, JsonValue]
    ) -> tuple[ToolResult, http_retry.Facts]:
        """Repeat an exchange (a request and its answer) until no retry rule asks for another exchange.

        Return the last exchange's result, and the facts about the exchange for conditions and templates. Raises the
        ToolError of the last exchange.
        """
        tries, stop = 0, self._context.stop
        share = room.share(stop)
        while True:
            room.release(room.share(stop) - share, stop)  # the data of the previous exchange is no longer held
            tries += 1
            error: ToolError | None = None
            try:
                result = await self._exchange(config)
            except ConfigurationError:
                raise
            except ToolError as caught:
                error = caught
                result = ToolResult.failure(str(caught), kind=caught.kind, retryable=caught.retryable, code=caught.code)
            facts = _facts(result, tries, names)
            rule = self._rule_for(facts, tries)
            if rule is None or not await self._wait_to_retry(rule, tries, result):
                if error is not None:
                    raise error
                return result, facts

    def _rule_for(self, facts: http_retry.Facts, tries: int) -> http_retry.RetryRule | None:
        rule = next((rule for rule in self._plan.rules if http_retry.holds(rule, facts, self._context)), None)
        return rule if rule is not None and tries < rule.attempts else None

    async def _wait_to_retry(self, rule: http_retry.RetryRule, tries: int, result: ToolResult) -> bool:
        """Wait before a request is retried, and return True. The wait is the retry rule's delay, or Retry-After if the
        server asked for longer. Return False at once if the command is stopped, or if the deadline would pass during
        the wait."""
        delay = max(http_retry.delay_s(rule, tries), retry_after_s(result.data) or 0.0)
        left = self._left()
        if self._context.stop.is_set():
            return False
        if left is not None and delay >= left:
            self._context.logger.info("http_retry_given_up", delay_s=round(delay, 3), left_s=round(left, 3))
            return False
        reason = result.error.message if result.error is not None else "success"
        self._context.logger.info("http_retry", tries=tries, delay_s=round(delay, 3), reason=reason)
        live_output.say("retry", f"attempt {tries} of {rule.attempts}: {reason}; again in {delay:g} s")
        await asyncio.sleep(delay)
        return True

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()

    # ── pages ──

    async def _paged(self, pages: http_retry.Pages) -> ToolResult:
        config, gathered = self._config, None
        seen: set[bytes] = set()
        for number in range(1, pages.limit + 1):
            asked = _fingerprint(config, self._headers)
            if asked in seen:
                return _page_failure(f"page {number} repeats an earlier request: let 'next_call' ask for another page")
            seen.add(asked)
            names: dict[str, JsonValue] = {"_retry": {"index": number, "count": number}, pages.into: gathered}
            result, facts = await self._exchange_with_retries(config, names)
            if result.status is not ToolStatus.SUCCESS or not isinstance(result.data, dict):
                return dataclasses.replace(result, data={**fields_of(result.data), "pages": number - 1})
            if result.data.get("truncated"):
                limit = self._config.max_response_bytes
                return _page_failure(f"pages 1 to {number} have over {limit} bytes: raise 'max_response_bytes'")
            try:
                gathered = collected(gathered, result.data["data"], pages)
            except ValueError as error:
                return _page_failure(f"page {number}: {error}")
            last = {**result.data, "data": gathered, "body": gathered, "pages": number}
            if not http_retry.is_true(pages.condition, facts, self._context):
                break
            config = self._next(config, pages, facts)
        else:
            last["notes"] = [f"stopped after {pages.limit} pages although there are more"]
            last["truncated"] = True
        return ToolResult.success(last, exit_code=0)

    def _next(self, config: HttpFields, pages: http_retry.Pages, facts: http_retry.Facts) -> HttpFields:
        """Return the fields of the request for the next page: those of `config`, changed by the playbook's `next_call`.
        `next_call` adds to the previous `params` and `headers`, and replaces other fields. A new `url` without `params`
        drops the previous `params`."""
        rendered = self._context.values.render(pages.next_call, facts.names)
        changes: dict[str, Any] = {}
        for name, value in fields_of(rendered).items():
            if name in ("url", "endpoint"):
                changes["url"] = str(httpx.URL(config.url).join(str(value)))
            elif name == "params":
                changes["params"] = {**config.params, **fields_of(value)}
            elif name == "headers":
                self._headers = {**self._headers, **fields_of(value)}
            else:
                changes[name] = value
        if "url" in changes and "params" not in changes:
            # differs-from-upstream: a `next` link has all parameters; `params` of the first page would replace some
            changes["params"] = {}
        following = dataclasses.replace(config, **changes)
        self._require_no_credentials_elsewhere(following)
        return following

    def _require_no_credentials_elsewhere(self, following: HttpFields) -> None:
        """Raise CredentialError if the request for the next page would send this step's credentials to another server.
        The previous answer may have named that server (`next: https://other/`).

        A redirect to another server only drops the credentials. A next page fails the call instead, because without
        credentials that server would hardly return the right page.

        Raises:
            CredentialError: the next page is on another server, and the request has credentials.
        """
        here = Destination(self._config.url, self._first_headers).place()
        there = Destination(following.url, self._headers).place()
        if here == there:
            return
        headers = [name for name, value in self._headers.items() if value is not None]
        carried = [f"header {name!r}" for name in headers if is_secret(name, self._token_headers)]
        if following.auth is not None:
            carried.insert(0, "auth")
        if carried:
            raise CredentialError(
                f"http: the next page is at {there}, but this step's credentials ({', '.join(carried)}) are only for "
                f"{here}: let 'next_call' change only `params` or the path, or read that page in another step"
            )

    # ── one exchange ──

    async def _exchange(self, config: HttpFields) -> ToolResult:
        left = self._left()
        limit_s = config.attempt_timeout or ATTEMPT_TIMEOUT_S
        if left is not None and (left < limit_s or config.attempt_timeout is None):
            limit_s = left
        if limit_s <= 0:
            return _timed_out(self._total_s or 0.0, config.url)
        self._exchanges += 1
        # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that arrives as the exchange finishes
        with anyio.move_on_after(limit_s):
            return await self._authorized(config)
        limit_shown_s = self._total_s if left is not None and limit_s == left and self._total_s else limit_s
        return _timed_out(limit_shown_s, config.url)

    async def _authorized(self, config: HttpFields) -> ToolResult:
        """Send the request and return the result. If the server answers 401 to an access token that the worker fetched,
        send the request again with a new token."""
        result, fetched = await self._sent(config)
        if fetched is not None and fields_of(result.data).get("status_code") == 401:
            self._authorizer.tokens.forget(fetched)
            result, _ = await self._sent(config)
        return result

    async def _sent(self, config: HttpFields) -> tuple[ToolResult, str | None]:
        authorization = _NO_AUTHORIZATION if config.auth is None else await self._authorization(config)
        started, settings = time.monotonic(), self._context.settings
        async with self._clients.lease(config.options, to=config.url, settings=settings) as client:
            with ExitStack() as files:
                headers = self._context.worker.with_trace(self._headers)
                as_json = self._context.command.form.field_list_is_json
                opener = FileParts(files, settings)
                built = partial(build, config, headers, authorization, opener, lists_are_json=as_json)
                request = await finished_off_loop(built) if config.files else built()
                try:
                    response = await send(
                        client,
                        request,
                        follow_redirects=config.follow_redirects,
                        secret_headers=(*authorization.headers, *self._token_headers),
                    )
                    self._has_connected = True
                    limit = max(1, config.max_response_bytes - self._received)
                    content = await read(response, limit, self._context.stop)
                except httpx.TimeoutException as error:
                    self._has_connected = True
                    return _unanswered(error, config), None
                except (httpx.HTTPError, ssl.SSLError) as error:  # TLS 1.3 refuses a client after the handshake
                    is_first_hop = isinstance(error, httpx.ConnectError) and error.request is request
                    if is_first_hop and not self._has_connected:
                        raise_shortage(f"to connect to {shown(request.url)}", error)
                    self._has_connected = True
                    return transport_failure(error, request), None
        if self._plan.pages is not None:
            self._received += content.size
        elapsed_s = time.monotonic() - started
        result = await answer_result(response, content, config.response_type, elapsed_s)
        return _hide_params(result, authorization.params), authorization.fetched

    async def _authorization(self, config: HttpFields) -> Authorization:
        destination = Destination(config.url, self._headers, config.proxy)
        with nullcontext() if self._has_connected else before_any_effect("to fetch the credential"):
            return await self._authorizer.authorize(config.auth, self._context, destination)

    # ── headers with token() ──

    async def _rendered_headers(self) -> dict[str, JsonValue]:
        """Return the step's headers with their templates rendered. In each header except `Host`, `{{ token(alias) }}`
        becomes the bearer token of the credential `alias`, as in NoETL's own Python worker."""
        given, render = self._config.headers, self._context.values.render
        self._token_headers = [
            name
            for name, value in given.items()
            if isinstance(value, str) and "{{" in value and _TOKEN_CALL.search(value) and name.lower() != "host"
        ]
        rendered: dict[str, JsonValue] = dict(given)
        for name in sorted(given, key=self._token_headers.__contains__):  # `Host` decides where tokens go
            try:
                if name in self._token_headers:
                    destination = Destination(self._config.url, rendered, self._config.proxy)
                    rendered[name] = await self._with_tokens(given[name], destination)
                else:
                    rendered[name] = render(given[name])
            except TemplateError as error:
                raise TemplateError(f"http: field 'headers': {name}: {error}") from error
        return rendered

    async def _with_tokens(self, value: str, destination: Destination) -> JsonValue:
        tokens: dict[str, JsonValue] = {}
        for expression in _TOKEN_CALL.findall(value):
            alias = str(self._context.values.render("{{ " + expression + " }}"))
            tokens[alias] = await self._authorizer.token(alias, self._context, destination)
        return self._context.values.render(_TOKEN_CALL.sub(rf"{_TOKENS_NAME}[\1]", value), {_TOKENS_NAME: tokens})


def _facts(result: ToolResult, tries: int, names: Mapping[str, JsonValue]) -> http_retry.Facts:
    data = fields_of(result.data)
    payload, status = data.get("data"), data.get("status_code")
    failure = result.error
    error: JsonValue = None
    if failure is not None:
        error = {
            "status": status,
            "message": failure.message,
            "type": failure.code or failure.kind,
            "kind": failure.kind,
            "retryable": failure.retryable,
        }
    known: dict[str, JsonValue] = {
        **names,
        "response": payload,
        "page": payload,
        "result": {"status": result.status.value, "data": result.data, "error": error},
        "status_code": status,
        "error": error,
        "attempt": tries,
        "success": failure is None,
    }
    return http_retry.Facts(failure, known)


def _fingerprint(config: HttpFields, headers: Mapping[str, JsonValue]) -> bytes:
    body = [getattr(config, name) for name in http_retry.NEXT_FIELDS]
    return dumps([config.url, config.params, dict(headers), body])


def _page_failure(message: str) -> ToolResult:
    return ToolResult.failure(f"http: {message}", kind="parse", exit_code=1)


def collected(gathered: Any, payload: JsonValue, pages: http_retry.Pages) -> Any:
    """Return `gathered` (the values of earlier pages) together with the value at `pages.path` in this page's `payload`.
    With the strategy `replace`, return only this page's value. Raises ValueError if the page has no such value, or if
    the value has the wrong type."""
    try:
        part = part_at(payload, pages.path)
    except LookupError:
        raise ValueError(f"the answer has no {pages.path!r} to collect; correct 'path'") from None
    if pages.strategy == "replace":
        return part
    if pages.strategy == "merge":
        if not isinstance(part, Mapping):
            given = pages.path or "the answer"
            raise ValueError(f"strategy merge collects objects, but {given} is no object; use append")
        return {**(gathered or {}), **part}
    return [*(gathered or []), *(part if isinstance(part, list) else [part])]


# ── failures ────────────────────────────────────────────────────────────────────────────────────


def _timed_out(seconds: float, url: str) -> ToolResult:
    return ToolResult.timed_out(round(seconds, 3), data={"url": without_user(url), "status_code": None})


def _unanswered(error: httpx.TimeoutException, config: HttpFields) -> ToolResult:
    """Return the timeout result of an exchange whose `connect_timeout` or `read_timeout` has expired."""
    connecting = isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout))
    name, limit = ("connect", config.connect_timeout) if connecting else ("read", config.read_timeout)
    text = f"no connection after {limit:g} seconds" if connecting else f"nothing came for {limit:g} seconds"
    failure = ToolFailure(f"http: {text} ({name}_timeout)", kind="timeout", retryable=True, code=type(error).__name__)
    return ToolResult(ToolStatus.TIMEOUT, data={"url": without_user(config.url), "status_code": None}, error=failure)


def _hide_params(result: ToolResult, params: Mapping[str, str]) -> ToolResult:
    """Return the result with the credential's query parameters (`params`) removed from `url`, so that no event shows
    the credential."""
    if not params or not isinstance(result.data, dict):
        return result
    url = httpx.URL(str(result.data["url"]))
    for name in params:
        url = url.copy_remove_param(name)
    return dataclasses.replace(result, data={**result.data, "url": str(url)})


def transport_failure(error: httpx.HTTPError | ssl.SSLError, request: httpx.Request) -> ToolResult:
    """Return a failed result if the answer is unusable, such as an endless redirect or a broken gzip body. Raises
    ToolError if no answer arrived, or if the request could not be sent.

    A missing answer is raised, as in the Rust worker. If a tool returns a failure, the Rust plane completes the step,
    and the playbook would not notice an unreachable host. The rules of a task sequence see raised and returned
    failures.
    """
    place = shown(request.url)
    data: dict[str, JsonValue] = {"url": place, "status_code": None}
    text = f"{request.method} {place}: {type(error).__name__}: {error}"
    if isinstance(error, httpx.LocalProtocolError):
        raise ConfigurationError(
            f"http: the request to {place} cannot be sent: {error}; correct the step's url, headers or body"
        ) from error
    if isinstance(error, (httpx.TooManyRedirects, httpx.UnsupportedProtocol)):
        return ToolResult.failure(text, kind="client_error", code=type(error).__name__, data=data)
    if isinstance(error, httpx.DecodingError):
        return ToolResult.failure(text, kind="parse", code="DecodingError", data=data)
    if _cause(error, ssl.SSLCertVerificationError):
        text += "; set 'ca_file' to the authority that signed it"
        raise ToolError(text, kind="connection", retryable=False, code="certificate") from error
    raise ToolError(text, kind="connection", retryable=True, code=type(error).__name__) from error


def _cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
