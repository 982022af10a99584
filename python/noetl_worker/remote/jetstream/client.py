"""nats-py's client with corrected `flush` and `drain`, a callback for each received message, and limits on received
data."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import UserString
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.parser import BytesParser
from pathlib import Path
from typing import Any, ClassVar, Final

import nats.js.client
import nats.js.manager
import nats.js.object_store
import nats.protocol.parser
from nats.aio.client import DEFAULT_FLUSH_TIMEOUT
from nats.aio.client import Client as LibraryClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import Error, ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser

from noetl_worker.observability import metrics
from noetl_worker.process.lookups import OWN, Lookups

_LARGEST_MESSAGE: Final = 64 * 1024 * 1024
"""Largest number of bytes of one message: the highest limit that a nats-server can be configured with. The limit that
the server announces is not trusted."""
_LONGEST_HEADERS: Final = 1024 * 1024
_LONGEST_LINE: Final = 64 * 1024
_MOST_VALUES: Final = 250_000
"""Largest number of values in one JSON answer, since parsing blocks the event loop. A page of a stream's subjects has
100,000 values."""
_IS_NATS: Final = "check that NATS_URL names a NATS server"
_NO_SEED: Final = "NATS_SEED, or the file of NATS_NKEY, is not an NKEY seed; a seed begins with SU"
_NO_SEED_IN_CREDENTIALS: Final = "the credentials have no NKEY seed: is NATS_CREDS a complete .creds file?"


class UnusableKey(Error):
    """Error for a login whose key is invalid. Every further attempt to connect with this key would fail."""


class UnreadableAnswer(Error):
    """Error for a server's answer that is not a JSON object, or that exceeds a size limit."""


class _Json:
    """Replacement for the module `json` inside nats-py. nats-py parses answers on the event loop, so the number of JSON
    values is limited."""

    dumps: ClassVar = staticmethod(json.dumps)

    @staticmethod
    def loads(data: bytes | str) -> dict[str, Any]:
        """Return the JSON object in `data`. Raise UnreadableAnswer if `data` is not a JSON object, or has too many
        values."""
        raw = data.encode() if isinstance(data, str) else data or b""
        if sum(map(raw.count, (b",", b"[", b"{"))) > _MOST_VALUES:
            raise UnreadableAnswer(f"the server's answer has more than {_MOST_VALUES:,} JSON values: {_IS_NATS}")
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise UnreadableAnswer(f"the server's answer is not JSON ({error}): {_IS_NATS}") from error
        if not isinstance(found, dict):
            raise UnreadableAnswer(f"the server's answer is JSON, but not an object: {_IS_NATS}")
        return found


for _module in (nats.js.client, nats.js.manager, nats.js.object_store, nats.protocol.parser):
    vars(_module)["json"] = _Json


class _HeaderParser(BytesParser):
    """Parser of a stored message's headers. nats-py's own parser is a mail parser: its time grows with the square of a
    Content-Type's length."""

    def parsebytes(self, text: bytes | bytearray, headersonly: bool = False) -> Any:
        if len(text) > _LONGEST_HEADERS:
            raise UnreadableAnswer(f"a message has headers of more than {_LONGEST_HEADERS >> 20} MiB")
        return LibraryClient._parse_header_lines(bytes(text))


class _Parser(Parser):
    """Parser of the NATS protocol with limits on the length of a line and of a message. nats-py's parser has no such
    limits."""

    nc: Client

    async def parse(self, data: bytes = b"") -> None:
        self.nc.left -= len(data)
        if self.state == AWAITING_CONTROL_LINE and b"\n" not in data:
            self.buf.extend(data)  # no line ends here; nats-py would search again from the beginning
        else:
            await self._parse(data)
        if self.state == AWAITING_MSG_PAYLOAD:
            most = min(_LARGEST_MESSAGE, self.nc.left + len(self.buf))
            is_too_much = self.needed > most or self.header_needed > _LONGEST_HEADERS
        else:
            is_too_much = self.nc.left < 0 or len(self.buf) > _LONGEST_LINE
        if is_too_much:
            self.nc.has_had_too_much = True
            self.reset()
            # this ends the connection
            raise ProtocolError(f"the server sends more than the worker's limits allow: {_IS_NATS}")

    async def _parse(self, data: bytes) -> None:
        try:
            await super().parse(data)
        except (ProtocolError, OSError):
            raise
        except Exception as error:  # otherwise nats-py stops reading, and the connection only seems alive
            raise ProtocolError(f"the server sends unreadable data ({error}): {_IS_NATS}") from error


class _Transport(TcpTransport):
    """Transport whose write to a broken connection raises OSError on every event loop.

    uvloop raises RuntimeError instead, and nats-py does not catch RuntimeError. The RuntimeError ended the task of a
    pull or an ack before nats-py noticed the broken connection. The RuntimeError would also end nats-py's reconnect
    task, without a log line.
    """

    def write(self, payload: bytes) -> None:
        try:
            self._io_writer.write(payload)  # type: ignore[union-attr]  # connected
        except RuntimeError as error:
            raise ConnectionResetError("the connection to NATS is closed") from error

    def writelines(self, payload: list[bytes]) -> None:
        try:
            self._io_writer.writelines(payload)  # type: ignore[union-attr]  # connected
        except RuntimeError as error:
            raise ConnectionResetError("the connection to NATS is closed") from error


class Client(LibraryClient):
    """nats-py's client, but each PING is sent after all data that were written before the PING.

    nats-py (2.14 to 2.16) sends a PING at once, ahead of data that wait for its flusher. So `flush` returned before the
    server had read a publish, and did not report a refused publish. `drain` of a subscription returned before the
    server had read the UNSUB. A command delivered after such a `drain` was dropped until its ack_wait was over. With
    nats-py's order, 48 of 800 drains lost a command. With the order here, 2 of 800 drains lost a command, through a gap
    in the server. tests/integration/test_connection.py checks the order on the wire.
    """

    def __init__(self, names: Lookups = OWN) -> None:
        super().__init__()
        self.names: Final = names
        self.receivers: Final[dict[int, Callable[[Msg], None]]] = {}
        """Callbacks given to `receive`, by subscription number."""
        self.left: float = math.inf
        """Number of bytes that this client still accepts from the server. Infinite unless a caller sets a limit."""
        self.has_had_too_much = False
        self._ps = _Parser(self)
        self._asked: Final[dict[asyncio.Future[Any], str]] = {}
        """Subject of each open request. The key is a future: if the NATS server refuses the request (no permission),
        the future gets the error text."""
        self.is_ack_refused = False
        """True if the server refused an acknowledgement since this flag was reset. The login then lacks the permission
        to acknowledge."""
        self._answers_refused: str | None = None
        """Error text of the server if this login may not subscribe to answers, else None. Without this subscription no
        request gets an answer."""

    async def _connect_to_server(self, s: Any) -> None:
        self._answers_refused, self.is_ack_refused = None, False  # permissions may have changed
        await self._connect_to_first_address(s)
        if isinstance(self._transport, TcpTransport):
            self._transport.__class__ = _Transport  # nats-py has no option for it

    async def _connect_to_first_address(self, s: Any) -> None:
        """Connect to a server, at the first of its addresses that answers.

        The worker resolves the server's name in its own threads (`Lookups`). nats-py would use the event loop's
        resolver, which one silent name server can block. A WebSocket still connects by name, because TLS and the Host
        header need the name.
        """
        port, is_web = s.uri.port, s.uri.scheme in ("ws", "wss")
        connect_to_server, s.last_attempt = super()._connect_to_server, time.monotonic()

        async def connect(address: str) -> None:
            netloc = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            await connect_to_server(s if is_web else replace(s, uri=s.uri._replace(netloc=netloc)))

        connecting = self.names.connected(s.uri.hostname, port, connect)
        await asyncio.wait_for(connecting, self.options["connect_timeout"])

    async def _process_connect_init(self) -> None:
        """Log in. Convert every failure into an error after which nats-py tries to connect again.

        Any other error would silently end nats-py's reconnecting. This happened while a key file was being rewritten,
        and with a server that does not speak NATS.
        """
        try:
            await super()._process_connect_init()
        except (OSError, asyncio.TimeoutError, Error):
            raise
        except Exception as error:
            raise Error(f"greeting or login failed ({type(error).__name__}: {error}): {_IS_NATS}") from error

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        text = creds.data.encode() if isinstance(creds, UserString) else Path(creds).read_bytes()
        if b"BEGIN NATS USER JWT" not in text:  # nats-py would search for it endlessly
            raise UnusableKey("the credentials have no NATS USER JWT: is NATS_CREDS a complete .creds file?")
        return bytearray(super()._read_creds_user_jwt(creds))

    def _read_creds_user_nkey(self, creds: Any) -> bytearray:
        seed = super()._read_creds_user_nkey(creds)  # None if there is none
        _require_seed(seed or b"", _NO_SEED if isinstance(creds, UserString) else _NO_SEED_IN_CREDENTIALS)
        return bytearray(seed)

    def _setup_nkeys_seed_connect(self) -> None:
        text = self._nkeys_seed_str.encode() if self._nkeys_seed_str else Path(str(self._nkeys_seed)).read_bytes()
        _require_seed(text, _NO_SEED)
        super()._setup_nkeys_seed_connect()

    def forget(self, subscription: Subscription) -> None:
        """Remove a subscription that could not be ended. Otherwise nats-py would subscribe again after a reconnect."""
        self._remove_sub(subscription._id)

    async def receive(self, subject: str, receiver: Callable[[Msg], None]) -> Subscription:
        """Subscribe, and call `receiver` with each message as soon as the message is read.

        `receiver` must not raise: an exception would end the connection. nats-py's own delivery through a queue and a
        task costs 19 more function calls for each message.
        """
        subscription = await self.subscribe(subject)
        self.receivers[subscription._id] = receiver
        return subscription

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self.receivers.pop(sid, None)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if sid in self.receivers:
            read = await self._process_headers(headers) if headers else None
            self.receivers[sid](Msg(self, subject.decode(errors="replace"), reply.decode(errors="replace"), data, read))
        else:
            subject, reply = (name.decode(errors="replace").encode() for name in (subject, reply))
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Return a message's headers, or None if they are unreadable. If an error were raised here, any publisher could
        end the connection with bad headers."""
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError):
            return None

    def jetstream(self, **options: Any) -> Any:
        context = super().jetstream(**options)
        context._hdr_parser = _HeaderParser()
        return context

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Send a request and return its answer. A refusal by the server is raised at once, not after the timeout."""
        if self._answers_refused is not None:
            raise Error(self._answers_refused)
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[refused] = subject
        request: asyncio.Future[Any] = asyncio.ensure_future(
            super().request(subject, payload, timeout, old_style, headers)
        )
        try:
            await asyncio.wait([request, refused], return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                answer: Msg = request.result()
                return answer
            raise Error(refused.result())
        finally:
            del self._asked[refused]
            request.cancel()

    async def _process_err(self, err_msg: str) -> None:
        await super()._process_err(err_msg)
        said = err_msg.lower()
        if "permissions violation" in said:
            self.is_ack_refused |= (is_ack := 'publish to "$js.ack.' in said)
            what = "acknowledge" if is_ack else "pull" if "consumer.msg.next" in said else "other"
            metrics.PERMISSION_VIOLATIONS.labels(what).inc()
        answers = bytes(self._resp_sub_prefix or b"-").decode().lower()
        if f'subscription to "{answers}' in said:
            self._answers_refused = str(self.last_error)
        for refused, subject in self._asked.items():
            is_refused = self._answers_refused is not None or f'publish to "{subject.lower()}"' in said
            if is_refused and not refused.done():
                refused.set_result(str(self.last_error))

    async def _process_pong(self) -> None:
        """Handle a PONG, even for a `flush` that was cancelled.

        nats-py would set a result on the cancelled future, and the resulting error would silently end nats-py's reader.
        The connection would then receive nothing until unanswered pings end the connection.
        """
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def flush(self, timeout: int = DEFAULT_FLUSH_TIMEOUT) -> None:
        """Flush written data to the server. Raise Error if there is no connection; nats-py would return as if the
        server had the data."""
        if not self.is_connected:
            raise Error("there is no connection")
        await super().flush(timeout)

    async def _attempt_reconnect(self) -> None:
        self._end_flushes()
        for server in self._server_pool:
            self.names.forget(str(server.uri.hostname))
        await super()._attempt_reconnect()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._end_flushes()
        await super()._close(status, do_cbs)

    def _end_flushes(self) -> None:
        """Fail each open `flush` of a connection that ended. Otherwise `flush` would wait for its timeout, because no
        PONG comes any more."""
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(Error("the connection ended"))
                pong.exception()  # marked as read, or asyncio would report it

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        if self.is_connected and self._transport is not None and self._pending_data_size > 0:
            self._transport.writelines(self._pending)  # nats-py's flusher then finds nothing to write
            self._pending, self._pending_data_size = [], 0
        await super()._send_ping(future)


def require_key(login: Mapping[str, Any]) -> None:
    """Check the key of a login before connecting. `login` has the arguments of `Client.connect`.

    Raises:
        UnusableKey: the key is invalid.
        OSError: the key's file cannot be read.
    """
    if "user_credentials" in login:
        client = Client()
        client._read_creds_user_jwt(login["user_credentials"])
        client._read_creds_user_nkey(login["user_credentials"])
    elif "nkeys_seed_str" in login:
        _require_seed(login["nkeys_seed_str"].encode(), _NO_SEED)
    elif "nkeys_seed" in login:
        _require_seed(Path(login["nkeys_seed"]).read_bytes(), _NO_SEED)


def _require_seed(text: bytes | bytearray, otherwise: str) -> None:
    """Raise UnusableKey with the text `otherwise` if `text` is not an NKEY seed."""
    import nkeys

    try:
        nkeys.from_seed(bytearray(text.strip()))
    except Exception as error:
        raise UnusableKey(otherwise) from error
