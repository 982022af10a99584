"""Redaction for every path out that is not an event body: exception texts, log lines, values of events.

Event bodies go through `engine.fit_result`, which applies the same rules in one pass. Whoever logs or stores something
while a command runs need not be handed its secrets: `known_here()` has them, for this task and what it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeAlias

from noetl_worker import engine
from noetl_worker.engine.pure.redact import MARK, MIN_SECRET_CHARS, Redactor
from noetl_worker.engine.pure.secrets import Secrets
from noetl_worker.engine.pure.wrapped import with_lines
from noetl_worker.models.fit import SecretTexts
from noetl_worker.models.wire import JsonValue, texts_in
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.text import json_text

LARGE: Final = 256 * 1024
"""Above this a value is redacted beside the loop: the pure engine takes 0.3 s a megabyte."""
_LONGEST_SECRET: Final = 8_192
"""A key file of 4 kB, in hex. A longer secret that begins in an excerpt is known by its lines only."""
Known: TypeAlias = SecretTexts | Sequence[str]
"""What is known to be secret; a plain sequence is taken out wherever it stands."""
_KNOWN: Final[ContextVar[Callable[[], Known] | None]] = ContextVar("noetl_worker_known_secrets", default=None)


remember: Final = _KNOWN.set
"""Takes a function: in this task and those that it starts, `known_here` gives what the function gives at that time."""


def known_here() -> SecretTexts:
    """The secrets of the command that is being worked on; none outside of one."""
    known = _KNOWN.get()
    return _texts(known()) if known is not None else SecretTexts()


def _texts(known: Known) -> SecretTexts:
    return known if isinstance(known, SecretTexts) else SecretTexts(tuple(known))


def _secrets(anywhere: Sequence[str], words: Sequence[str], value: JsonValue) -> Secrets:
    return with_lines(Secrets(anywhere, words), texts_in(value))


def redact_text(text: str, known: Known = ()) -> str:
    """Redact free text, which people read: short known secrets go too, where they are whole words.

    Replaces known secrets of at least four characters, what has the shape of a credential (Bearer and Basic headers,
    JWT, PEM, `sk-`, `ghp_`, `AIza`, `ya29.`, `xox*-`, the password of a URL), and the value of `password=...`.
    """
    texts = _texts(known)
    return engine.redact_text(text, texts.anywhere, texts.in_messages)


def redact_value(value: JsonValue, known: Known = ()) -> JsonValue:
    """Return a redacted copy of a JSON value: by key words, known secrets and shapes, as `engine.fit_result` does.

    Tuples and other non-JSON objects pass through as they are; encode first if they may hold secrets.
    """
    texts = _texts(known)
    return Redactor(_secrets(texts.anywhere, texts.words, value)).value(value)


def redact_fields(fields: Mapping[str, Any], known: Known = ()) -> dict[str, JsonValue]:
    """Redact the fields of a log line: as `redact_value`, their texts as free text. Any object becomes plain JSON."""
    plain = json_text.plain(dict(fields))
    texts = _texts(known)
    secrets = _secrets(texts.anywhere, texts.in_messages, plain)
    redacted: dict[str, JsonValue] = Redactor(secrets, free_text=True).value(plain)
    return redacted


def excerpt(text: str | bytes, chars: int) -> str:
    """The first characters of a foreign text, redacted before it is cut: half of a secret would not be known any more.

    For every text that goes out cut: into a message, a log line, a preview. As free text, see `redact_text`.
    """
    most = chars + _LONGEST_SECRET
    if isinstance(text, bytes):
        text = text[: 4 * most + 1].decode("utf-8", "replace")
    if len(text) > most:
        text = without_half_at_end(text[:most].encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
    return redact_text(text, known_here())[:chars]


def without_half_at_end(data: bytes) -> bytes:
    """What was cut at its end, as output is at its limit, without a piece of a known secret that the cut left there."""
    size = _half_at_end(data, _encoded(known_here().in_data))
    return data[:-size] + MARK.encode() if size else data


def without_half_at_start(data: bytes) -> bytes:
    """The same for what was cut at its start, as the last lines of an output are."""
    size = _half_at_end(data[::-1], (secret[::-1] for secret in _encoded(known_here().in_data)))
    return MARK.encode() + data[size:] if size else data


def _half_at_end(data: bytes, secrets: Iterable[bytes]) -> int:
    """How many of the last bytes are the beginning of a secret, at most."""
    longest = 0
    for secret in secrets:
        beginning = secret[: _least(secret)]
        window = data[-(len(secret) - 1) :]
        at = window.find(beginning)
        while at >= 0 and not secret.startswith(window[at:]):
            at = window.find(beginning, at + 1)
        if at >= 0:
            longest = max(longest, len(window) - at)
    return longest


def _encoded(secrets: Sequence[str]) -> Iterator[bytes]:
    return (secret.encode("utf-8", "replace") for secret in secrets)


def _least(secret: bytes) -> int:
    """Bytes of a secret that are worth taking out; fewer are at many a cut by chance, and disclose little."""
    return min(MIN_SECRET_CHARS, (len(secret) + 1) // 2)


def without_known(value: JsonValue, known: Known) -> JsonValue:
    """Return a copy without the known secrets, in texts and keys; nothing is judged by its name or shape.

    For values that a playbook passes on, where `auth: my_alias` is a name and no secret.
    """
    texts = _texts(known)
    return Redactor(_secrets(texts.anywhere, texts.words, value), known_only=True).value(value)


async def passed_on(value: JsonValue, known: Known) -> JsonValue:
    """Return `without_known`; a large value is gone through beside the loop."""
    work = partial(without_known, value, known)
    return await finished_off_loop(work) if sum(map(len, texts_in(value))) > LARGE else work()
