"""Search for messages in a stream, for operators. Messages are read without being delivered or acknowledged."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.remote.jetstream.api import TIMEOUT_S, ask, ask_if_there
from noetl_worker.remote.jetstream.client import Client

_AT_ONCE: Final = 64
_MOST_OF_A_SUBJECT: Final = 10_000


@dataclass(frozen=True, slots=True)
class StoredMessage:
    sequence: int
    subject: str
    stored_at: str
    """Time in RFC 3339, by the server's clock."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Search:
    found: tuple[StoredMessage, ...]
    """Matching messages, the newest first."""
    looked_at: int
    there: int
    """Number of messages in the whole stream. After a search of a single subject (`search_subject`), only the number of
    messages that were read."""


async def search_newest(client: Client, stream: str, matches: Callable[[bytes], bool], *, most: int) -> Search:
    """Search the newest `most` messages of a stream for messages whose data `matches` accepts.

    Raises:
        JetStreamError: the stream does not exist, or this login may not read it.
    """
    state = (await ask(client, f"STREAM.INFO.{stream}"))["state"]
    last, first = int(state["last_seq"]), max(int(state["first_seq"]), 1)
    numbers = list(range(last, max(first, last - most + 1) - 1, -1))
    found: list[StoredMessage] = []
    looked_at = 0
    async for message in read_each(client, stream, numbers):
        looked_at += 1
        if matches(message.data):
            found.append(message)
    return Search(tuple(found), looked_at, int(state["messages"]))


async def read_each(client: Client, stream: str, numbers: Sequence[int]) -> AsyncIterator[StoredMessage]:
    """Yield the messages with these stream sequences, in the given order. Sequences without a message are left out.

    Several requests run at the same time, to save time.
    """
    for at in range(0, len(numbers), _AT_ONCE):
        asked = (get(client, stream, {"seq": number}) for number in numbers[at : at + _AT_ONCE])
        for message in await asyncio.gather(*asked):
            if message is not None:
                yield message


async def search_subject(client: Client, stream: str, subject: str, matches: Callable[[bytes], bool]) -> Search:
    """Search the messages of one subject for messages whose data `matches` accepts. The subject may have wildcards."""
    found: list[StoredMessage] = []
    looked_at, number = 0, 1
    while looked_at < _MOST_OF_A_SUBJECT:
        message = await get(client, stream, {"seq": number, "next_by_subj": subject})
        if message is None:
            break
        looked_at, number = looked_at + 1, message.sequence + 1
        if matches(message.data):
            found.append(message)
    return Search(tuple(reversed(found)), looked_at, looked_at)


async def last_message(client: Client, stream: str, subject: str) -> StoredMessage | None:
    """Return the newest message of a subject, or None if the subject has no message. The subject may have wildcards."""
    return await get(client, stream, {"last_by_subj": subject})


async def get(
    client: Client, stream: str, body: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S
) -> StoredMessage | None:
    """Return the message that `body` selects, such as `{"seq": 7}`, or None if no such message exists.

    Raises:
        JetStreamError: the request failed.
    """
    answer = await ask_if_there(client, f"STREAM.MSG.GET.{stream}", body, timeout_s=timeout_s)
    if answer is None:
        return None
    message = answer["message"]
    data = base64.b64decode(message.get("data") or "")
    return StoredMessage(int(message["seq"]), str(message["subject"]), str(message.get("time") or ""), data)
