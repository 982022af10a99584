"""Conversion of nats-py errors to ToolErrors with a kind, such as `not_found` or `timeout`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from json import JSONDecodeError
from typing import Any, Final

from noetl_worker.errors import ToolError
from noetl_worker.tools.kinds.nats.connections import COMMAND_BYTES, Address, Connections


@asynccontextmanager
async def leased_client(connections: Connections, address: Address, operation: str) -> AsyncIterator[Any]:
    """Provide a connected client. An error of nats-py inside the block becomes a ToolError that names the operation."""
    import nats.errors

    async with connections.lease(address) as client:
        try:
            yield client
        except (nats.errors.Error, OSError, JSONDecodeError, UnicodeDecodeError) as error:
            if client.has_had_too_much:
                text = f"{operation} failed: the server sent more than {COMMAND_BYTES >> 20} MiB for one command"
                raise ToolError(text, kind="resource") from error
            raise library_failure(operation, error, connections.refusal(address)) from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # nats-py checks no answer
            text = (
                f"{operation} failed: nats-py cannot read the server's answer: {type(error).__name__}: {error}; "
                "report this as a bug"
            )
            raise ToolError(text, kind="parse") from error


def library_failure(operation: str, error: Exception, refusal: str | None) -> ToolError:
    """Return the ToolError for an error of nats-py.

    `refusal`: the permission violation that the server reported. The server never answers a forbidden request, so the
    library raises only a timeout.
    """
    import nats.errors
    from nats.js import errors as js_errors

    from noetl_worker.remote.jetstream.client import UnreadableAnswer

    if refusal is not None and (isinstance(error, nats.errors.TimeoutError) or refusal in str(error)):
        return not_permitted(operation, refusal)
    kinds: tuple[tuple[str, tuple[type[Exception], ...]], ...] = (
        ("not_found", (js_errors.NotFoundError, js_errors.NoStreamResponseError)),
        ("parse", (js_errors.DigestMismatchError, UnreadableAnswer)),
        ("timeout", (nats.errors.TimeoutError,)),
        ("server_error", (js_errors.ServiceUnavailableError, js_errors.ServerError)),
        ("connection", (nats.errors.ConnectionClosedError, nats.errors.StaleConnectionError, OSError)),
    )
    kind = next((kind for kind, classes in kinds if isinstance(error, classes)), "client_error")
    is_conflict = isinstance(error, js_errors.KeyWrongLastSequenceError)
    return ToolError(
        f"{operation} failed: {_failure_text(error)}",
        kind=kind,
        retryable=kind not in ("not_found", "parse", "client_error"),
        code="wrong_last_sequence" if is_conflict else type(error).__name__,
    )


def not_permitted(operation: str, refusal: str) -> ToolError:
    text = f"{operation} failed: {refusal}; add this permission to the NATS user of the step's credential"
    return ToolError(text, kind="auth", code="permissions_violation")


_WORDS: Final[Mapping[str, str]] = {
    "BucketNotFoundError": "the bucket does not exist",
    "ObjectNotFoundError": "the object does not exist",
    "NoStreamResponseError": "no stream takes messages on this subject",
    "InvalidKeyError": "the key may have letters, digits and - / _ = . only, with no dot at either end",
    "JSONDecodeError": "the server's answer is not JSON",
    "TimeoutError": "the server did not answer in time",
}
"""nats-py error class -> message for the user, because nats-py's own text is only the class name or gives no reason."""


def _failure_text(error: Exception) -> str:
    description, ours = getattr(error, "description", None), _WORDS.get(type(error).__name__)
    if ours:
        return f"{ours} ({description})" if description else ours
    return str(description or str(error) or type(error).__name__)
