"""A small JetStream: one server, streams of limits retention, pull consumers with explicit acks."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from simulate.clock import Clock, VirtualLoop

API: Final = "$JS.API."


class Peer(Protocol):
    """The server's end of one connection."""

    name: str

    def has_interest(self, subject: str) -> bool: ...
    def send(self, subject: str, data: bytes, *, shown: str = "", reply: str = "", headers: Any = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Stored:
    sequence: int
    subject: str
    data: bytes
    stored_at: float
    wall_ns: int


@dataclass(slots=True)
class Pending:
    """Delivered and not settled."""

    deadline: float
    holder: Peer | None
    """Who has it; None once it was returned."""
    waits_again: bool = False
    """In the queue of what is delivered again."""


@dataclass(eq=False, slots=True)
class Pull:
    peer: Peer
    reply: str
    left: int
    idle_s: float
    spoke_at: float


@dataclass(eq=False, slots=True)
class Consumer:
    name: str
    config: dict[str, Any]
    ack_wait_s: float
    max_ack_pending: int
    filters: tuple[str, ...]
    next_sequence: int = 1
    consumer_sequence: int = 0
    pending: dict[int, Pending] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)
    delivered: dict[int, int] = field(default_factory=dict)
    settled: dict[int, float] = field(default_factory=dict)
    """Sequence -> when it was acked or terminated."""
    pulls: deque[Pull] = field(default_factory=deque)


@dataclass(eq=False, slots=True)
class Stream:
    name: str
    config: dict[str, Any]
    subjects: tuple[str, ...]
    max_age_s: float
    messages: dict[int, Stored] = field(default_factory=dict)
    last_sequence: int = 0
    consumers: dict[str, Consumer] = field(default_factory=dict)


class JetStream:
    """The state of the server; connections come and go around it."""

    def __init__(self, loop: VirtualLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self.streams: dict[str, Stream] = {}
        self.on_delivered: Callable[[Consumer, Stored, Peer, str], None] = lambda *_: None
        self.on_answer: Callable[[Stream, Stored, Peer, str], None] = lambda *_: None
        self.on_expired: Callable[[Stored, Peer], None] = lambda *_: None

    # ── what arrives ──

    def receive(self, peer: Peer, subject: str, data: bytes, reply: str) -> None:
        """One PUB of a client."""
        if subject.startswith(API):
            self._api(peer, subject.removeprefix(API).split("."), data, reply)
        elif subject.startswith("$JS.ACK."):
            self._answered(peer, subject, data, reply)
        else:
            stream = self._stream_of(subject)
            if stream is None:
                self._no_responders(peer, reply)
                return
            stored = self.store(stream, subject, data)
            if reply:
                peer.send(reply, json.dumps({"stream": stream.name, "seq": stored.sequence}).encode())

    def store(self, stream: Stream, subject: str, data: bytes) -> Stored:
        stream.last_sequence += 1
        wall_ns = int(self._clock.true_wall() * 1_000_000) * 1_000
        stored = Stored(stream.last_sequence, subject, data, self._clock.now, wall_ns)
        stream.messages[stored.sequence] = stored
        for consumer in stream.consumers.values():
            self._pump(stream, consumer)
        return stored

    def add_stream(self, name: str, subjects: list[str], max_age_s: float = 0.0) -> Stream:
        config = {"name": name, "subjects": subjects, "max_age": int(max_age_s * 1e9), "retention": "limits"}
        stream = self.streams[name] = Stream(name, config, tuple(subjects), max_age_s)
        return stream

    # ── faults ──

    def restart(self, *, forget_since: float | None = None) -> None:
        """Pull requests are forgotten, what is stored is not; but acks after `forget_since` may be (no fsync)."""
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                consumer.pulls.clear()
                if forget_since is None:
                    continue
                for sequence in [one for one, at in consumer.settled.items() if at >= forget_since]:
                    del consumer.settled[sequence]
                    consumer.pending[sequence] = Pending(self._clock.now, None)
                    self._expire(stream, consumer, sequence)

    def delete_consumer(self, stream: Stream, name: str) -> None:
        consumer = stream.consumers.pop(name, None)
        if consumer is not None:
            for pull in consumer.pulls:
                self._status(pull, "409", "Consumer Deleted")
            for rest in (consumer.pulls, consumer.again, consumer.pending):
                rest.clear()

    # ── the API ──

    def _api(self, peer: Peer, words: list[str], data: bytes, reply: str) -> None:
        body = json.loads(data) if data else {}
        if words[:3] == ["CONSUMER", "MSG", "NEXT"]:
            self._pull(peer, words[3], words[4], body, reply)
            return
        answer = self._manage(words, body)
        if answer is None:
            self._no_responders(peer, reply)
        else:
            peer.send(reply, json.dumps(answer).encode())

    def _manage(self, words: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
        kind = ".".join(words[:2])
        if kind == "STREAM.NAMES":
            found = self._stream_of(body["subject"])
            return {"streams": [found.name] if found else None, "total": int(found is not None)}
        if kind == "STREAM.CREATE":
            if words[2] not in self.streams:
                made = self.add_stream(words[2], body["subjects"], body.get("max_age", 0) / 1e9)
                made.config["discard"] = body.get("discard", "old")
            return self._stream_info(words[2])
        if kind == "STREAM.INFO":
            return self._stream_info(words[2])
        stream = self.streams.get(words[-2])
        if stream is None:
            return _error(404, 10059, "stream not found")
        if kind == "CONSUMER.INFO":
            return self._consumer_info(stream, words[-1])
        if kind in ("CONSUMER.DURABLE", "CONSUMER.CREATE"):
            self._make_consumer(stream, words[-1], body["config"])
            return self._consumer_info(stream, words[-1])
        return None

    def _make_consumer(self, stream: Stream, name: str, config: dict[str, Any]) -> None:
        if name in stream.consumers:
            return
        filters = tuple(config.get("filter_subjects") or [config.get("filter_subject") or ">"])
        stream.consumers[name] = Consumer(
            name, config, config.get("ack_wait", 30e9) / 1e9, config.get("max_ack_pending", 1000), filters
        )

    def _stream_info(self, name: str) -> dict[str, Any]:
        stream = self.streams.get(name)
        if stream is None:
            return _error(404, 10059, "stream not found")
        state = {"messages": len(stream.messages), "bytes": 0, "first_seq": 1, "last_seq": stream.last_sequence}
        return {"config": stream.config, "state": {**state, "consumer_count": len(stream.consumers)}}

    def _consumer_info(self, stream: Stream, name: str) -> dict[str, Any]:
        consumer = stream.consumers.get(name)
        if consumer is None:
            return _error(404, 10014, "consumer not found")
        return {
            "name": name,
            "stream_name": stream.name,
            "config": consumer.config,
            "num_pending": sum(1 for one in stream.messages if one >= consumer.next_sequence),
            "num_ack_pending": len(consumer.pending),
            "num_redelivered": 0,
            "num_waiting": len(consumer.pulls),
        }

    # ── pulling and delivering ──

    def _pull(self, peer: Peer, stream_name: str, consumer_name: str, body: dict[str, Any], reply: str) -> None:
        stream = self.streams.get(stream_name)
        consumer = stream.consumers.get(consumer_name) if stream is not None else None
        if stream is None or consumer is None:
            self._no_responders(peer, reply)
            return
        expires_s, idle_s = body.get("expires", 0) / 1e9, body.get("idle_heartbeat", 0) / 1e9
        pull = Pull(peer, reply, body["batch"], idle_s, self._clock.now)
        consumer.pulls.append(pull)
        self._pump(stream, consumer)
        if pull.left > 0:
            self._loop.outside(expires_s, self._expire_pull, consumer, pull)
            if idle_s:
                self._loop.outside(idle_s, self._beat, consumer, pull)

    def _expire_pull(self, consumer: Consumer, pull: Pull) -> None:
        if pull in consumer.pulls:
            consumer.pulls.remove(pull)
            self._status(pull, "408", "Request Timeout")

    def _beat(self, consumer: Consumer, pull: Pull) -> None:
        if pull not in consumer.pulls:
            return
        silent_s = self._clock.now - pull.spoke_at
        if silent_s >= pull.idle_s - 1e-6:
            self._status(pull, "100", "Idle Heartbeat")
            pull.spoke_at, silent_s = self._clock.now, 0.0
        self._loop.outside(pull.idle_s - silent_s, self._beat, consumer, pull)

    def _status(self, pull: Pull, status: str, text: str) -> None:
        pull.peer.send(pull.reply, b"", headers={"Status": status, "Description": text})

    def _no_responders(self, peer: Peer, reply: str) -> None:
        if reply:
            peer.send(reply, b"", headers={"Status": "503"})

    def _pump(self, stream: Stream, consumer: Consumer) -> None:
        """Give what can be given to who asked for it."""
        while consumer.pulls:
            pull = consumer.pulls[0]
            if not pull.peer.has_interest(pull.reply):
                consumer.pulls.popleft()
                continue
            message = self._next(stream, consumer)
            if message is None:
                return
            self._deliver(stream, consumer, message, pull)
            consumer.pulls.popleft()
            if pull.left > 0:
                consumer.pulls.append(pull)

    def _next(self, stream: Stream, consumer: Consumer) -> Stored | None:
        while consumer.again:
            sequence = consumer.again.popleft()
            if sequence in consumer.pending and (message := self._live(stream, sequence)) is not None:
                return message
            consumer.pending.pop(sequence, None)
        while consumer.next_sequence <= stream.last_sequence:
            if len(consumer.pending) >= consumer.max_ack_pending:
                return None
            sequence = consumer.next_sequence
            consumer.next_sequence += 1
            message = self._live(stream, sequence)
            if message is not None and any(_matches(one, message.subject) for one in consumer.filters):
                return message
        return None

    def _live(self, stream: Stream, sequence: int) -> Stored | None:
        message = stream.messages.get(sequence)
        if message is not None and stream.max_age_s and self._clock.now - message.stored_at > stream.max_age_s:
            del stream.messages[sequence]
            return None
        return message

    def _deliver(self, stream: Stream, consumer: Consumer, message: Stored, pull: Pull) -> None:
        count = consumer.delivered[message.sequence] = consumer.delivered.get(message.sequence, 0) + 1
        consumer.consumer_sequence += 1
        consumer.pending[message.sequence] = Pending(self._clock.now + consumer.ack_wait_s, pull.peer)
        self._watch(stream, consumer, message.sequence)
        pull.left -= 1
        pull.spoke_at = self._clock.now
        left = sum(1 for one in stream.messages if one >= consumer.next_sequence)
        reply = (
            f"$JS.ACK.{stream.name}.{consumer.name}.{count}.{message.sequence}"
            f".{consumer.consumer_sequence}.{message.wall_ns}.{left}"
        )
        self.on_delivered(consumer, message, pull.peer, reply)
        pull.peer.send(pull.reply, message.data, shown=message.subject, reply=reply)

    def _watch(self, stream: Stream, consumer: Consumer, sequence: int) -> None:
        pending = consumer.pending[sequence]
        self._loop.outside(pending.deadline - self._clock.now, self._look, stream, consumer, sequence, pending)

    def _look(self, stream: Stream, consumer: Consumer, sequence: int, pending: Pending) -> None:
        if consumer.pending.get(sequence) is not pending or pending.waits_again:
            return
        if pending.deadline > self._clock.now + 1e-9:
            self._watch(stream, consumer, sequence)
        else:
            self._expire(stream, consumer, sequence)

    def _expire(self, stream: Stream, consumer: Consumer, sequence: int) -> None:
        pending = consumer.pending[sequence]
        message = stream.messages.get(sequence)
        if pending.holder is not None and message is not None and pending.deadline <= self._clock.now + 1e-9:
            self.on_expired(message, pending.holder)
        consumer.pending[sequence].waits_again = True
        consumer.again.append(sequence)
        self._pump(stream, consumer)

    # ── answers ──

    def _answered(self, peer: Peer, subject: str, data: bytes, reply: str) -> None:
        words = subject.split(".")
        stream = self.streams.get(words[2])
        consumer = stream.consumers.get(words[3]) if stream is not None else None
        if stream is None or consumer is None:
            self._no_responders(peer, reply)
            return
        sequence = int(words[5])
        message = stream.messages.get(sequence)
        word = data.split(b" ", 1)[0].decode()
        if message is not None:
            self.on_answer(stream, message, peer, data.decode())
        pending = consumer.pending.get(sequence)
        if pending is not None:
            self._apply(stream, consumer, sequence, pending, word, data)
        if reply:
            peer.send(reply, b"")

    def _apply(
        self, stream: Stream, consumer: Consumer, sequence: int, pending: Pending, word: str, data: bytes
    ) -> None:
        """An answer to an older delivery counts like one to the last: only the sequence is looked at."""
        if word in ("+ACK", "+TERM"):
            del consumer.pending[sequence]
            consumer.settled[sequence] = self._clock.now
            if sequence in consumer.again:
                consumer.again.remove(sequence)
        elif word == "+WPI":
            if not pending.waits_again:
                pending.deadline = self._clock.now + consumer.ack_wait_s
        elif word == "-NAK" and not pending.waits_again:
            delay_s = json.loads(data[5:])["delay"] / 1e9 if len(data) > 5 else 0.0
            pending.holder = None
            if delay_s <= 0:
                self._expire(stream, consumer, sequence)
                return
            consumer.pending[sequence] = Pending(self._clock.now + delay_s, None)
            self._watch(stream, consumer, sequence)
        self._pump(stream, consumer)

    def _stream_of(self, subject: str) -> Stream | None:
        return next((one for one in self.streams.values() if any(_matches(s, subject) for s in one.subjects)), None)


def _matches(pattern: str, subject: str) -> bool:
    return pattern in (">", subject) or (pattern.endswith(".>") and subject.startswith(pattern[:-1]))


def _error(code: int, err_code: int, text: str) -> dict[str, Any]:
    return {"error": {"code": code, "err_code": err_code, "description": text}}
