"""The client of nats-py: its `flush` and `drain` mean what they say, a message can be had as it is read, and what a
server sends is bounded."""

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

import anyio
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
"""What a server can be set to; not what it says of itself."""
_LONGEST_HEADERS: Final = 1024 * 1024
_LONGEST_LINE: Final = 64 * 1024
_MOST_VALUES: Final = 250_000
"""Signs of values in one JSON text: a page of the subjects of a stream has 100,000. It is parsed on the loop."""
_NO_SEED: Final = "NATS_SEED, or what the file of NATS_NKEY has, is no NKEY seed: it begins with SU"
_NO_SEED_IN_CREDENTIALS: Final = "the credentials have no NKEY seed: is NATS_CREDS a .creds file, and whole?"


class UnusableKey(Error):
    """What the login has for a key is none: to connect again makes nothing of it."""


class UnreadableAnswer(Error):
    """What the server sent has another form, or is more than is read."""


class _Json:
    """The `json` of the library's modules, which parse a server's answers on the loop, whatever they are."""

    dumps: ClassVar = staticmethod(json.dumps)

    @staticmethod
    def loads(data: bytes | str) -> dict[str, Any]:
        """Return the object in `data`. Raises UnreadableAnswer: it is none, or has too many values."""
        raw = data.encode() if isinstance(data, str) else data or b""
        if sum(map(raw.count, (b",", b"[", b"{"))) > _MOST_VALUES:
            raise UnreadableAnswer(f"the server answers with JSON of more than {_MOST_VALUES:,} values")
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise UnreadableAnswer(f"the server answers with what is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise UnreadableAnswer("the server answers with JSON that is no object")
        return found


for _module in (nats.js.client, nats.js.manager, nats.js.object_store, nats.protocol.parser):
    vars(_module)["json"] = _Json


class _HeaderParser(BytesParser):
    """Reads the headers of a stored message; the library's is for mail, and takes the square of a Content-Type."""

    def parsebytes(self, text: bytes | bytearray, headersonly: bool = False) -> Any:
        if len(text) > _LONGEST_HEADERS:
            raise UnreadableAnswer(f"a message has headers of more than {_LONGEST_HEADERS >> 20} MiB")
        return LibraryClient._parse_header_lines(bytes(text))


class _Parser(Parser):
    """The library's keeps a line until it ends and a message of any size that is announced."""

    nc: Client

    async def parse(self, data: bytes = b"") -> None:
        self.nc.left -= len(data)
        if self.state == AWAITING_CONTROL_LINE and b"\n" not in data:
            self.buf.extend(data)  # no line ends here, and the library would look for one from the beginning
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
            raise ProtocolError("the server sends more than is read")  # the connection ends with it

    async def _parse(self, data: bytes) -> None:
        try:
            await super().parse(data)
        except (ProtocolError, OSError):
            raise
        except Exception as error:  # else the library ends its reading, and the connection seems to be there
            raise ProtocolError(f"the server sends what cannot be read: {error}") from error


class _Transport(TcpTransport):
    """A write to a connection that broke is an OSError, on every event loop.

    uvloop raises a RuntimeError, which nobody expects: a pull or an ack that met the moment before the client noticed
    ended its task, and the client's own task of reconnecting would end without a word.
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
    """As the library's; a PING goes behind what was sent before it.

    nats-py (2.14 to 2.16) writes its PING at once, past the commands that wait for its flusher. So `flush` returned
    before the server had read a publish, and did not report its refusal; and `drain` of a subscription returned before
    the server had read the UNSUB, and threw away what it delivered in between: a command, until ack_wait was over (of
    800 drains that met a delivery 48 lost it; in this order 2, in a window that is the server's own).
    tests/integration/test_connection.py reads the order off the wire.
    """

    def __init__(self, names: Lookups = OWN) -> None:
        super().__init__()
        self.names: Final = names
        self.receivers: Final[dict[int, Callable[[Msg], None]]] = {}
        """By the number of their subscription."""
        self.left: float = math.inf
        """How many bytes the server may still send."""
        self.has_had_too_much = False
        self._ps = _Parser(self)
        self._asked: Final[dict[asyncio.Future[Any], str]] = {}
        """The subjects of requests that are open."""
        self.is_ack_refused = False
        """Whether an acknowledgement was refused since this was set back: this login may not publish it."""
        self._is_mute: str | None = None
        """Why no request is ever answered: this login may not subscribe to the answers."""

    async def _connect_to_server(self, s: Any) -> None:
        self._is_mute, self.is_ack_refused = None, False  # permissions may be others
        await self._connect_to_one_of(s)
        if isinstance(self._transport, TcpTransport):
            self._transport.__class__ = _Transport  # the library asks for no class of ours

    async def _connect_to_one_of(self, s: Any) -> None:
        """Connect to the first address of a server that answers: the library has the event loop look its name up.

        A WebSocket is connected to by name, for its TLS and Host header have that; it must have an address by then.
        """
        port, is_web = s.uri.port, s.uri.scheme in ("ws", "wss")
        connect_to_server, s.last_attempt = super()._connect_to_server, time.monotonic()

        async def connect(address: str) -> None:
            netloc = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            await connect_to_server(s if is_web else replace(s, uri=s.uri._replace(netloc=netloc)))

        with anyio.fail_after(self.options["connect_timeout"]):
            await self.names.connected(s.uri.hostname, port, connect)

    async def _process_connect_init(self) -> None:
        """Any failure of it is one of a try to connect: others end the library's reconnecting for good, without a word.

        Seen for a key that is being written anew, and for a server that greets with something else.
        """
        try:
            await super()._process_connect_init()
        except (OSError, asyncio.TimeoutError, Error):
            raise
        except Exception as error:
            raise Error(f"neither a greeting nor a login: {type(error).__name__}: {error}") from error

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        text = creds.data.encode() if isinstance(creds, UserString) else Path(creds).read_bytes()
        if b"BEGIN NATS USER JWT" not in text:  # the library looks for it without an end
            raise UnusableKey("the credentials have no NATS USER JWT: is NATS_CREDS a .creds file, and whole?")
        return bytearray(super()._read_creds_user_jwt(creds))

    def _read_creds_user_nkey(self, creds: Any) -> bytearray:
        seed = super()._read_creds_user_nkey(creds)  # None: it has none
        _require_seed(seed or b"", _NO_SEED if isinstance(creds, UserString) else _NO_SEED_IN_CREDENTIALS)
        return bytearray(seed)

    def _setup_nkeys_seed_connect(self) -> None:
        text = self._nkeys_seed_str.encode() if self._nkeys_seed_str else Path(str(self._nkeys_seed)).read_bytes()
        _require_seed(text, _NO_SEED)
        super()._setup_nkeys_seed_connect()

    def forget(self, subscription: Subscription) -> None:
        """Of one whose end failed: a reconnect would make it again."""
        self._remove_sub(subscription._id)

    async def receive(self, subject: str, receiver: Callable[[Msg], None]) -> Subscription:
        """Subscribe; `receiver` is called with each message as it is read, and raises nothing: that would end the
        connection. In the library's way, over a queue and a task, a message costs 19 calls more."""
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
        """None where they cannot be read: whoever may publish could end the connection by them."""
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
        """What this login may not ask ends at once: the server says so beside the request, and the library waits on."""
        if self._is_mute is not None:
            raise Error(self._is_mute)
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
            self._is_mute = str(self.last_error)
        for refused, subject in self._asked.items():
            is_refused = self._is_mute is not None or f'publish to "{subject.lower()}"' in said
            if is_refused and not refused.done():
                refused.set_result(str(self.last_error))

    async def _process_pong(self) -> None:
        """Also where the `flush` that asked for it was given up: the library sets a result on the cancelled future, and
        that error ends its reading without a word. The connection is deaf then until the pings find it."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def flush(self, timeout: int = DEFAULT_FLUSH_TIMEOUT) -> None:
        """Fails where no connection is: the library's comes back, and nobody knows whether the server will have it."""
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
        """A `flush` fails with its connection, whose PONG never comes: in the library it waits on to its timeout."""
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(Error("the connection ended"))
                pong.exception()  # else one that nobody waits for is reported

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        if self.is_connected and self._transport is not None and self._pending_data_size > 0:
            self._transport.writelines(self._pending)  # as the flusher does it, which then finds nothing
            self._pending, self._pending_data_size = [], 0
        await super()._send_ping(future)


def require_key(login: Mapping[str, Any]) -> None:
    """Read the key of a login, as given to `Client.connect`, before there is a server.

    Raises:
        UnusableKey: it is none.
        OSError: its file cannot be read.
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
    """Raises UnusableKey: the library knows an error for some of what is no seed, and ends with others."""
    import nkeys

    try:
        nkeys.from_seed(bytearray(text.strip()))
    except Exception as error:
        raise UnusableKey(otherwise) from error
