"""The redaction of exception texts, log lines and single values before they leave the worker.

Event bodies are redacted elsewhere: `engine.fit_result` applies the same rules in one pass. Code that logs or stores
values for a command gets the command's secrets from `known_here()`. `known_here()` works in the command's asyncio task
and in all tasks that this task starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from noetl_worker.engine.pure.redact import MARK, MIN_SECRET_CHARS, Redactor
from noetl_worker.engine.pure.secrets import Secrets
from noetl_worker.engine.pure.wrapped import with_lines
from noetl_worker.models.fit import SecretTexts
from noetl_worker.models.wire import JsonValue, is_larger, texts_in
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.text import json_text

LARGE: Final = 256 * 1024
"""Largest text, in characters, that is redacted on the event loop. A larger text is redacted in a thread, because the
engine in pure Python takes 0.3 s a megabyte."""
_LONGEST_SECRET: Final = 8_192
"""Number of characters after an excerpt that are searched for secrets too, because a secret may begin in the excerpt
and end after the excerpt. The number is enough for a key file of 4 kB in hex. If a secret is longer, only its single
lines are found."""
_NONE: Final = SecretTexts()
_KNOWN: Final[ContextVar[Callable[[], SecretTexts] | None]] = ContextVar("noetl_worker_known_secrets", default=None)


remember: Final = _KNOWN.set
"""Function that registers a callback for the current asyncio task and the tasks that this task starts. The callback
returns the command's secrets. `known_here` calls the callback at each use, because more secrets may have been added."""


def known_here() -> SecretTexts:
    """Return the secrets of the command that this task works on, or no secrets outside a command."""
    known = _KNOWN.get()
    return known() if known is not None else _NONE


def _secrets(anywhere: Sequence[str], words: Sequence[str], value: JsonValue) -> Secrets:
    return with_lines(Secrets(anywhere, words), texts_in(value))


def redact_text(text: str, known: SecretTexts = _NONE) -> str:
    """Redact a text that people will read, such as a log line. A short known secret is replaced only as a whole word.

    Three things are replaced: known secrets of at least four characters; texts in the form of a credential (Bearer and
    Basic headers, JWT, PEM, `sk-`, `ghp_`, `AIza`, `ya29.`, `xox*-`, the password of a URL); the value in
    `password=...`.
    """
    import noetl_worker.engine.chosen as engine  # late: a bridge's own log lines do without it

    return engine.redact_text(text, known.anywhere, known.message_texts)


def redact_value(value: JsonValue, known: SecretTexts = _NONE) -> JsonValue:
    """Return a redacted copy of a JSON value, by the rules of `engine.fit_result`.

    Three things are replaced: values under secret keys, known secrets, and texts that look like a credential. Tuples
    and other non-JSON objects stay unchanged; encode a value first if it may contain such objects.
    """
    return Redactor(_secrets(known.anywhere, known.words, value)).value(value)


def redact_fields(fields: Mapping[str, Any], known: SecretTexts = _NONE) -> dict[str, JsonValue]:
    """Return the fields of a log line as redacted JSON. Short known secrets are replaced too, but only as whole
    words."""
    plain = json_text.plain(dict(fields))
    secrets = _secrets(known.anywhere, known.message_texts, plain)
    redacted: dict[str, JsonValue] = Redactor(secrets, free_text=True).value(plain)
    return redacted


def excerpt(text: str | bytes, chars: int) -> str:
    """Return the first `chars` characters of a text from outside the worker, redacted before the cut.

    Use `excerpt` for every text that is cut for a message, a log line or a preview. After the cut, redaction would not
    recognize half a secret.
    """
    most = chars + _LONGEST_SECRET
    if isinstance(text, bytes):
        text = text[: 4 * most + 1].decode("utf-8", "replace")
    if len(text) > most:
        text = first_chars(text, most)
    return redact_text(text, known_here())[:chars]


def first_chars(text: str, most: int) -> str:
    """Return the first `most` characters of a text. If the cut divides a known secret, "[REDACTED]" replaces the part
    of the secret before the cut."""
    return drop_half_at_end(text[:most].encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def drop_half_at_end(data: bytes) -> bytes:
    """Return `data`, whose end was cut off. If the cut divided a known secret, "[REDACTED]" replaces the part of
    the secret before the cut."""
    size = _half_at_end(data, _encoded(known_here().data_texts))
    return data[:-size] + MARK.encode() if size else data


def drop_half_at_start(data: bytes) -> bytes:
    """Return `data`, whose start was cut off. If the cut divided a known secret, "[REDACTED]" replaces the part of
    the secret after the cut."""
    size = _half_at_end(data[::-1], (secret[::-1] for secret in _encoded(known_here().data_texts)))
    return MARK.encode() + data[size:] if size else data


def _half_at_end(data: bytes, secrets: Iterable[bytes]) -> int:
    """Return how many bytes at the end of `data` are the beginning of a secret. If several secrets match, the longest
    match counts."""
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
    """Return the minimum size, in bytes, at which the remainder of a cut secret is redacted. Fewer bytes stay, because
    so few bytes occur by chance and disclose little."""
    return min(MIN_SECRET_CHARS, (len(secret) + 1) // 2)


def remove_known(value: JsonValue, known: SecretTexts) -> JsonValue:
    """Return a copy of a value with "[REDACTED]" in place of each known secret in its texts and keys.

    Other texts stay unchanged, even under a key such as `auth` or in the form of a credential. In values that a
    playbook passes on, `auth: my_alias` is a name and not a secret.
    """
    return Redactor(_secrets(known.anywhere, known.words, value), known_only=True).value(value)


async def remove_known_off_loop(value: JsonValue, known: SecretTexts) -> JsonValue:
    """Return a copy of a value without known secrets, as `remove_known` does. A large value is copied in a thread, so
    that the event loop is not blocked."""
    work = partial(remove_known, value, known)
    return await finished_off_loop(work) if is_larger(value, LARGE) else work()
