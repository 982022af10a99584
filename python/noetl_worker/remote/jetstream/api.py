"""Requests to JetStream's API, with plain JSON objects.

nats-py has methods for the same requests. But an update by nats-py drops configuration fields that nats-py does not
know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

import nats

from noetl_worker.errors import JetStreamError, NatsUnavailable
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.text import json_text

PREFIX: Final = "$JS.API"
TIMEOUT_S: Final = 5.0
ALREADY_THERE: Final = frozenset({10058, 10013, 10148})
"""Error numbers (`err_code`) with which JetStream refuses to create a stream or durable. The name is already in use,
with another configuration."""
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_NOT_ENABLED: Final = "JetStream is not enabled on this NATS server or for this account: start the server with -js"


class ApiRefused(JetStreamError):
    """Error for a request that JetStream refuses. `code` resembles an HTTP status (404); `err_code` is JetStream's own
    error number (10059)."""

    def __init__(self, subject: str, error: Mapping[str, Any]) -> None:
        self.code: Final = int(error.get("code") or 0)
        self.err_code: Final = int(error.get("err_code") or 0)
        self.text: Final = str(error.get("description") or "no description")
        super().__init__(
            f"JetStream refuses {subject}: {self.text} (code {self.code}, err_code {self.err_code}); `noetl-worker "
            "doctor` checks the stream, the durable and the permissions"
        )


def moment(text: str) -> float:
    """Return the epoch seconds of a UTC time in RFC 3339 (`2026-12-03T00:52:00.123456789Z`).

    Python 3.10 cannot parse nine decimals, so the decimals are cut to six.
    """
    seconds, _, fraction = text.rstrip("Z").partition(".")
    digits = (fraction[:6] or "0").ljust(6, "0")
    return datetime.fromisoformat(f"{seconds}.{digits}").replace(tzinfo=timezone.utc).timestamp()


async def ask(
    client: Client, subject: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Send one request to `$JS.API.<subject>` and return the answer.

    Raises:
        ApiRefused: the answer is an error.
        NatsUnavailable: JetStream is off, or does not answer.
    """
    try:
        answer = await client.request(
            f"{PREFIX}.{subject}", b"" if body is None else json_text.dumps(dict(body)), timeout=timeout_s
        )
    except nats.errors.NoRespondersError as error:
        raise NatsUnavailable(_NOT_ENABLED) from error
    except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
        raise NatsUnavailable(_no_answer(client, f"{PREFIX}.{subject}", error)) from error
    parsed = json_text.loads(answer.data)
    if not isinstance(parsed, dict):
        raise JetStreamError(
            f"the answer to {PREFIX}.{subject} is not a JSON object: check that NATS_URL names a NATS server"
        )
    problem = parsed.get("error")
    if isinstance(problem, dict):
        refused = ApiRefused(subject, problem)
        if refused.code == _UNAVAILABLE:
            raise NatsUnavailable(_NOT_ENABLED if "not enabled" in refused.text else str(refused)) from refused
        raise refused
    return dict(parsed)


def _no_answer(client: Client, subject: str, error: BaseException) -> str:
    """Return the error text for a request that JetStream did not answer. If NATS forbids the request, the reason is in
    `client.last_error`, not in `error`."""
    seen = str(client.last_error or "")
    if "permissions violation" in seen and (subject.lower() in seen.lower() or "subscription" in seen):
        refusal = seen.removeprefix("nats: ")
        return f'no answer from JetStream to {subject}, since NATS refuses it: "{refusal}"; give this login permission'
    return (
        f"no answer from JetStream to {subject} ({error!r}): check that the server is well, and that this login may "
        f"publish to {PREFIX}.>"
    )


async def ask_if_there(
    client: Client, subject: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S
) -> dict[str, Any] | None:
    """Send one request to JetStream's API and return the answer, or None if the requested object does not exist.

    Raises:
        ApiRefused: the answer is another error.
        NatsUnavailable: JetStream is off, or does not answer.
    """
    try:
        return await ask(client, subject, body, timeout_s=timeout_s)
    except ApiRefused as refused:
        if refused.code == _NOT_FOUND:
            return None
        raise


async def owning_stream(client: Client, *subjects: str) -> str | None:
    """Try `subjects` in order until a stream owns the subject, and return the name of this stream. Return None if no
    stream owns any of `subjects`."""
    for subject in subjects:
        names = (await ask(client, "STREAM.NAMES", {"subject": subject})).get("streams")
        if names:
            return str(names[0])
    return None
