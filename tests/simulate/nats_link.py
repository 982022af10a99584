"""Between a process and the NATS server: the client that the product sees, and the connection below it.

A connection keeps its order and loses nothing while it lives; what is under way when it breaks is gone. A stalled
link delivers late, or is given up by the client's ping after 10 to 20 s while the server still believes in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import nats
from nats.aio.client import Client, ServerVersion
from nats.aio.msg import Msg
from nats.js import JetStreamContext, JetStreamManager

from simulate.clock import STRAND, Process, VirtualLoop
from simulate.jetstream_model import JetStream
from simulate.trace import Trace

CONNECT_TIMEOUT_S: Final = 3.0


@dataclass(eq=False)
class Session:
    """One TCP connection: the server's `Peer`."""

    client: SimClient
    network: NatsNetwork
    is_open: bool = True
    is_abandoned: bool = False
    """The client has given it up; the server does not know."""
    interest: list[str] = field(default_factory=list)
    held: list[tuple[Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _last_up: float = 0.0
    _last_down: float = 0.0

    @property
    def name(self) -> str:
        return self.client.process.name

    def has_interest(self, subject: str) -> bool:
        return self.is_open and any(_matches(one, subject) for one in self.interest)

    def send(self, subject: str, data: bytes, *, shown: str = "", reply: str = "", headers: Any = None) -> None:
        """From the server to the client."""
        self.down(self._to_client, subject, data, shown, reply, headers)

    def up(self, what: Callable[..., None], *args: Any) -> None:
        """From the client to the server."""
        self._last_up = self._travel(self._last_up, what, *args)

    def down(self, what: Callable[..., None], *args: Any) -> None:
        self._last_down = self._travel(self._last_down, what, *args)

    def _travel(self, not_before: float, what: Callable[..., None], *args: Any) -> float:
        loop = self.network.loop
        arrives = max(not_before, loop.time() + self.network.latency_s(self.name))
        loop.outside(arrives - loop.time(), self._arrive, what, args)
        return arrives

    def _arrive(self, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.is_open:
            return
        if self.network.is_stalled(self.name):
            self.held.append((what, args))
        else:
            what(*args)

    def end_interest(self, subject: str) -> None:
        """An UNSUB; one of an earlier connection's subscription says nothing."""
        if subject in self.interest:
            self.interest.remove(subject)

    def release(self) -> None:
        held, self.held = self.held, []
        for what, args in held:
            if self.is_open:
                what(*args)

    def _to_client(self, subject: str, data: bytes, shown: str, reply: str, headers: Any) -> None:
        if not self.is_abandoned:
            message = Msg(cast(Client, self.client), shown or subject, reply, data, headers)
            self.client.received(subject, message)


class NatsNetwork:
    """Every connection to the one server."""

    def __init__(self, loop: VirtualLoop, server: JetStream, trace: Trace, seed: str) -> None:
        self.loop = loop
        self.server = server
        self.trace = trace
        self.chance = random.Random(f"{seed}:nats")
        self.is_down = False
        self.on_received: Callable[[str], None] = lambda _: None
        """The reply subject of each message that reaches its process (a frozen one gets it when it is thawed)."""
        self.slow_s: dict[str, float] = {}
        self.sessions: list[Session] = []
        self._stalled: set[str] = set()

    def latency_s(self, name: str) -> float:
        return self.chance.uniform(0.0002, 0.002) + self.chance.random() * self.slow_s.get(name, 0.0)

    def is_stalled(self, name: str) -> bool:
        return name in self._stalled

    def open(self, client: SimClient) -> Session:
        session = Session(client, self)
        self.sessions.append(session)
        return session

    # ── faults ──

    def cut(self, name: str | None = None) -> None:
        """Reset connections: of one process, or all."""
        for session in [one for one in self.sessions if name in (None, one.name)]:
            self.close(session)
            session.client.lost()

    def stall(self, name: str) -> None:
        """Nothing arrives any more, and nobody is told."""
        self._stalled.add(name)
        for session in [one for one in self.sessions if one.name == name]:
            self.loop.outside(self.chance.uniform(10.0, 20.0), self._give_up, session)

    def _give_up(self, session: Session) -> None:
        if session.is_open and not session.is_abandoned and self.is_stalled(session.name):
            session.is_abandoned = True
            session.client.lost()

    def unstall(self, name: str) -> None:
        self._stalled.discard(name)
        for session in [one for one in self.sessions if one.name == name]:
            if session.is_abandoned:
                self.close(session)
            else:
                session.release()

    def restart(self, *, forget_since: float | None = None) -> None:
        self.is_down = True
        self.cut()
        self.server.restart(forget_since=forget_since)

    def close(self, session: Session) -> None:
        session.is_open = False
        if session in self.sessions:
            self.sessions.remove(session)


class _Subscription:
    def __init__(self, client: SimClient, subject: str, receiver: Callable[[Msg], None]) -> None:
        self.client = client
        self.subject = subject
        self.receiver = receiver

    async def unsubscribe(self) -> None:
        self.client.end_interest(self)
        self.client.forget(self)

    async def drain(self) -> None:
        """What the server has sent before it hears of this is still received."""
        self.client.end_interest(self)
        await self.client.flush()
        self.client.forget(self)


class SimClient:
    """The part of nats-py's client that the product uses, behaving as nats-py 2.16 does (read from its source)."""

    def __init__(self, network: NatsNetwork, process: Process) -> None:
        self.process = process
        self.options: dict[str, Any] = {}
        self.is_closed = False
        self.is_connecting = False
        self.is_reconnecting = False
        self.last_error: Exception | None = None
        self.is_ack_refused = False
        self.stats = {"reconnects": 0}
        self._transport = None  # there are no sockets here that an attempt could leave open
        self.connected_server_version = ServerVersion("2.14.0")
        self._network = network
        self._context = contextvars.copy_context()
        self._session: Session | None = None
        self._subscriptions: list[_Subscription] = []
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._pending: list[tuple[str, bytes, str]] = []
        self._counter = 0
        self._inbox = f"_INBOX.{process.name}{network.chance.randrange(10**6)}"
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    async def connect(self, **options: Any) -> None:
        self.options, self.is_connecting = options, True
        try:
            await self._dial()
        except (OSError, asyncio.TimeoutError) as error:
            await options["error_cb"](error)
            self.is_closed = True
            raise nats.errors.NoServersError from error

    async def _dial(self) -> None:
        network, name = self._network, self.process.name
        await asyncio.sleep(network.latency_s(name))
        if network.is_stalled(name):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            raise asyncio.TimeoutError
        if network.is_down or self.process.is_dead:
            raise ConnectionRefusedError("connection refused")
        self._session, self.is_connecting, self.is_reconnecting = network.open(self), False, False
        for subject in [f"{self._inbox}.*", *(one.subject for one in self._subscriptions)]:
            self._session.up(self._session.interest.append, subject)
        pending, self._pending = self._pending, []
        for subject, data, reply in pending:  # buffered while it was down
            self._send(subject, data, reply)

    def lost(self) -> None:
        """The connection broke, or its ping was not answered."""
        self._session = None
        if not self.is_closed and not self.process.is_dead:
            self._tasks.append(self._context.run(self._network.loop.create_task, self._reconnect()))

    async def _reconnect(self) -> None:
        self.is_reconnecting = True
        await self.options["disconnected_cb"]()
        while not self.is_closed:
            await asyncio.sleep(self.options["reconnect_time_wait"])
            try:
                await self._dial()
            except (OSError, asyncio.TimeoutError) as error:
                await self.options["error_cb"](error)
                continue
            self.stats["reconnects"] += 1
            await self.options["reconnected_cb"]()
            return

    def new_inbox(self) -> str:
        self._counter += 1
        return f"{self._inbox}.i{self._counter}"

    async def receive(self, subject: str, receiver: Callable[[Msg], None]) -> _Subscription:
        self._check_open()
        subscription = _Subscription(self, subject, receiver)
        self._subscriptions.append(subscription)
        if self._session is not None:
            self._session.up(self._session.interest.append, subject)
        return subscription

    def end_interest(self, subscription: _Subscription) -> None:
        if self._session is not None:
            self._session.up(self._session.end_interest, subscription.subject)

    def forget(self, subscription: _Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: Any = None) -> None:
        self._check_open()
        if self._session is None:
            self._pending.append((subject, payload, reply))
        else:
            self._send(subject, payload, reply)

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 0.5, headers: Any = None) -> Msg:
        self._counter += 1
        inbox = f"{self._inbox}.r{self._counter}"
        answer = self._answers[inbox] = asyncio.get_running_loop().create_future()
        try:
            await self.publish(subject, payload, reply=inbox)
            message: Msg = await asyncio.wait_for(answer, timeout)
        except asyncio.TimeoutError:
            raise nats.errors.TimeoutError from None
        finally:
            self._answers.pop(inbox, None)
        if (message.headers or {}).get("Status") == "503":
            raise nats.errors.NoRespondersError
        return message

    async def flush(self, timeout: float = 10) -> None:
        self._check_open()
        pong = asyncio.get_running_loop().create_future()
        session = self._session

        def ping(back: Session) -> None:
            back.down(lambda: None if pong.done() else pong.set_result(None))

        if session is not None:
            session.up(ping, session)
        try:
            await asyncio.wait_for(pong, timeout)
        except asyncio.TimeoutError:
            raise nats.errors.FlushTimeoutError from None

    async def drain(self) -> None:
        await self.flush()
        await self.close()

    async def close(self) -> None:
        self.is_closed = True
        for task in self._tasks:
            task.cancel()
        session, self._session = self._session, None
        if session is not None:
            session.up(self._network.close, session)
        await asyncio.sleep(0)

    def jsm(self) -> JetStreamManager:
        return JetStreamManager(cast(Client, self))

    def jetstream(self) -> JetStreamContext:
        return JetStreamContext(cast(Client, self))

    # ── the wire ──

    def _check_open(self) -> None:
        if self.is_closed or self.process.is_dead:
            raise nats.errors.ConnectionClosedError

    def _send(self, subject: str, payload: bytes, reply: str) -> None:
        session = self._session
        if session is not None:
            session.up(self._network.server.receive, session, subject, payload, reply)

    def received(self, subject: str, message: Msg) -> None:
        if self.process.is_dead or self.is_closed:
            return
        answer = self._answers.get(subject)
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
            return
        for subscription in self._subscriptions:
            if _matches(subscription.subject, subject):
                self._context.run(self._network.loop.create_task, self._handed(subscription, message))

    async def _handed(self, subscription: _Subscription, message: Msg) -> None:
        self._network.on_received(message.reply)
        subscription.receiver(message)


def factory(network: NatsNetwork) -> Callable[[], SimClient]:
    """Stands for `Client()` of nats-py: a client of the process that asks."""

    def make() -> SimClient:
        strand = STRAND.get()
        assert strand is not None, "a NATS client outside of every process"
        return SimClient(network, strand.process)

    return make


def _matches(pattern: str, subject: str) -> bool:
    is_below = pattern.endswith(".*") and subject.startswith(pattern[:-1]) and subject.count(".") == pattern.count(".")
    return pattern == subject or is_below
