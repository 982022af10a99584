"""A conversation with an MCP server over streamable HTTP: JSON-RPC, answered as JSON or as an event stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx

from noetl_worker.errors import DocumentError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.room import room
from noetl_worker.process.threads import LARGE
from noetl_worker.text.json_text import dumps, loads_in_room
from noetl_worker.tools.error_kinds import http_failure
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.http.answer import read
from noetl_worker.tools.http.client import send, shown

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_ACCEPT: Final = "application/json, text/event-stream"
_METHOD_NOT_FOUND: Final = -32601
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class RpcError(Exception):
    """A JSON-RPC `error` object in the server's answer."""

    def __init__(self, error: Mapping[str, JsonValue]) -> None:
        super().__init__(str(error.get("message") or "no message"))
        self.code = error.get("code")
        self.data = error.get("data")


class McpSession:
    """A session with one server: call `initialize`, then `request` any number of times, then `close`."""

    def __init__(
        self, client: httpx.AsyncClient, endpoint: httpx.URL, headers: Mapping[str, str], first_id: int, owner: object
    ) -> None:
        self._client = client
        self._owner = owner
        self._endpoint = endpoint
        self._headers = dict(headers)
        self._secret_headers = tuple(headers)
        self._next_id = first_id
        self.session_id: str | None = None
        """Session id that the server expects in each request; None: the server keeps no session."""
        self.size = 0
        """Bytes of all answers so far; at most MAX_ANSWER_BYTES are read."""

    async def initialize(self, params: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Begin the session. Return the server's answer: protocolVersion, capabilities, serverInfo.

        differs-from-upstream: the worker then sends `notifications/initialized`, as the protocol demands. Servers of
        the reference SDK refuse every request before this notification.
        """
        answer = await self.request("initialize", params)
        version = answer.get("protocolVersion")
        if isinstance(version, str):
            self._headers["MCP-Protocol-Version"] = version
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, None)
        return answer

    async def request(self, method: str, params: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Send a JSON-RPC request, and return the `result` of the server's answer. A `result` that is not an object is
        returned as {"value": result}.

        Raises:
            RpcError: the server answered with an error.
            ToolError: no answer, an HTTP error status, or an answer that is not JSON-RPC.
        """
        request_id, self._next_id = self._next_id, self._next_id + 1
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": dict(params)}
        answer = await self._post(message, request_id)
        if isinstance(answer.get("error"), Mapping):
            raise RpcError(answer["error"])
        result = answer.get("result")
        return result if isinstance(result, Mapping) else {"value": result}

    async def close(self) -> None:
        """End the session at the server. If the server keeps no session, send nothing.

        Raises:
            httpx.HTTPError: the request could not be sent.
        """
        if self.session_id is not None:
            request = self._client.build_request("DELETE", self._endpoint, headers=self._request_headers())
            response = await self._client.send(request, stream=True)  # the body is not needed, and may be long
            await response.aclose()

    def _request_headers(self) -> dict[str, str]:
        headers = {**self._headers, "Accept": _ACCEPT}
        return {**headers, "Mcp-Session-Id": self.session_id} if self.session_id else headers

    async def _post(self, message: Mapping[str, JsonValue], request_id: int | None) -> Mapping[str, Any]:
        """Send a message. Return the JSON-RPC answer to `request_id`, or {} for a notification (`request_id` is None),
        which gets no answer."""
        headers = {**self._request_headers(), "Content-Type": "application/json"}
        request = httpx.Request("POST", self._endpoint, headers=headers, content=dumps(message))
        place = shown(self._endpoint)
        try:
            response = await send(
                self._client, request, follow_redirects=True, secret_headers=[*self._secret_headers, "Mcp-Session-Id"]
            )
            try:
                return await self._answer(response, request_id, place)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            text = f"no answer from the MCP server at {place}: {type(error).__name__}: {error}"
            # a notification or an answer (`request_id` is None) follows a request that the server has executed
            not_sent = isinstance(error, _NOT_SENT) and request_id is not None
            raise ToolError(text, kind="connection", retryable=not_sent, code=type(error).__name__) from error

    async def _answer(self, response: httpx.Response, request_id: int | None, place: str) -> Mapping[str, Any]:
        self.session_id = response.headers.get("Mcp-Session-Id") or self.session_id
        is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        if response.is_success and request_id is None:
            return {}
        if response.is_success and is_stream:
            async for message in self._messages(response, place):
                if message.get("id") == request_id and "method" not in message:
                    return message
                await self._refuse(message)
            raise ToolError(
                f"the MCP server at {place} ended its stream without the answer: read the server's log",
                kind="connection",
            )
        body = await self._body(response, place)
        try:
            document = await loads_in_room(body, self._owner)
        except DocumentError:
            document = None
        return _plain_answer(response, document, body, request_id, place)

    async def _body(self, response: httpx.Response, place: str) -> bytes:
        content = await read(response, MAX_ANSWER_BYTES - self.size, self._owner)
        if content.is_cut:
            raise _too_long(place)
        self.size += content.size
        return content.take()

    async def _messages(self, response: httpx.Response, place: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the JSON object of each event in an event stream. An event may spread its JSON over several `data:`
        lines."""
        event = bytearray()
        async for line in _lines(self._chunks(response, place)):
            if line.startswith(b"data:"):
                event += line[5:].removeprefix(b" ") + b"\n"
            elif not line and event:
                yield await self._message(event, place)
        if event:  # the server closed without the last blank line
            yield await self._message(event, place)

    async def _chunks(self, response: httpx.Response, place: str) -> AsyncIterator[bytes]:
        if response.headers.get("content-encoding"):  # httpx decompresses a chunk to any size
            yield await self._body(response, place)
            return
        async for chunk in response.aiter_bytes():
            self.size += len(chunk)
            if self.size > LARGE:
                await room.take(len(chunk), self._owner)
            if self.size > MAX_ANSWER_BYTES:
                raise _too_long(place)
            yield chunk

    async def _message(self, event: bytearray, place: str) -> Mapping[str, Any]:
        """Return the JSON object in a server-sent event, or {} for an event without an object. Clear the buffer `event`
        for the next event."""
        text = bytes(event)
        event.clear()
        if not text.strip():  # an event without content keeps the stream alive
            return {}
        try:
            value = await loads_in_room(text, self._owner)
        except DocumentError as error:
            problem = f"the MCP server at {place} sends an event that is not JSON: {error}"
            raise ToolError(problem, kind="parse") from error
        return value if isinstance(value, Mapping) else {}

    async def _refuse(self, message: Mapping[str, Any]) -> None:
        """Answer a request that the MCP server sends to the worker: a ping with {}, any other request with an error,
        because the worker offers no methods. A notification of the server gets no answer."""
        if "method" not in message or "id" not in message:
            return
        error = {"code": _METHOD_NOT_FOUND, "message": f"this client has no {message['method']}"}
        reply = {"result": {}} if message["method"] == "ping" else {"error": error}
        await self._post({"jsonrpc": "2.0", "id": message["id"], **reply}, None)


def _plain_answer(
    response: httpx.Response, document: JsonValue, body: bytes, request_id: int | None, place: str
) -> Mapping[str, Any]:
    """Return the answer to `request_id` in a JSON body, which may be a JSON-RPC batch.

    Raises:
        RpcError: the HTTP status is a failure, and the body has a JSON-RPC error.
        ToolError: the body has no JSON-RPC answer.
    """
    messages = [
        message for message in (document if isinstance(document, list) else [document]) if isinstance(message, Mapping)
    ]
    for message in messages:
        if message.get("id") == request_id and ("result" in message or "error" in message):
            return message
        if not response.is_success and isinstance(message.get("error"), Mapping):
            raise RpcError(message["error"])
    shown_body = " ".join(excerpt(body, 300).split()) or "(empty)"
    if response.is_success:
        raise ToolError(f"the MCP server at {place} answers no JSON-RPC ({shown_body}): check 'endpoint'", kind="parse")
    text = f"the MCP server at {place} answers HTTP {response.status_code}: {shown_body}"
    raise http_failure(text, response.status_code)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    begun = bytearray()
    async for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            begun += end
            yield bytes(begun.removesuffix(b"\r"))
            begun.clear()
        begun += rest
    yield bytes(begun)


def _too_long(place: str) -> ToolError:
    return ToolError(
        f"the MCP server at {place} answers with more than {MAX_ANSWER_BYTES} bytes: ask for less", kind="resource"
    )
