"""The values of `output.error.kind`: the words that playbook rules and events use for a kind of failure.

Most words are those of NoETL's Python worker (protocol/tasks.md#results), so that playbooks for that worker work here.
Some failures that the Python worker calls `unknown` have further words here. Built-in tools use only the words listed
here. A plug-in may use other words, but playbook authors look here first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from noetl_worker.errors import ControlPlaneError, ServerRefused, ToolError

_BAD_GATEWAY: Final = 502


class ErrorKind(NamedTuple):
    """The description of one kind of failure, for the reference page of all kinds."""

    meaning: str
    retryable: str
    """Answer to "may the same call succeed later?": yes, no, or a condition. For a single failure the answer is in
    `output.error.retryable`."""


ERROR_KINDS: Final[Mapping[str, ErrorKind]] = {
    "configuration": ErrorKind("the tool's config is wrong or incomplete, or the kind is not there", "no"),
    "template": ErrorKind("a template does not compile or cannot be rendered", "no"),
    "auth": ErrorKind("a credential cannot be resolved, or the other side refuses it", "if it could not be fetched"),
    "connection": ErrorKind(
        "the other side is not reached, or the connection broke",
        "if not sent; `http` and `nats`: in any case",
    ),
    "timeout": ErrorKind("the call took longer than it may", "yes; not where a `playbook` waited"),
    "rate_limit": ErrorKind("the other side asks for fewer calls (HTTP 429)", "yes"),
    "not_found": ErrorKind("what was asked for is not there (HTTP 404, no such database, bucket or key)", "no"),
    "client_error": ErrorKind("the other side refuses the request as it is (other HTTP 4xx)", "no"),
    "server_error": ErrorKind("the other side failed (HTTP 5xx)", "yes; not the start of a `playbook`"),
    "schema": ErrorKind("data has another structure than the one that is needed", "no"),
    "parse": ErrorKind("an answer cannot be read as what it says it is", "no"),
    "transform": ErrorKind("data cannot be turned into what was asked for, or kept by a control plane (U+0000)", "no"),
    "process": ErrorKind("a process cannot be started, ended with an exit code other than 0, or died", "if it died"),
    "python": ErrorKind("Python code of the playbook raised, or its result is no JSON", "no"),
    "execution": ErrorKind("a script raised, or ended in an error", "no"),
    "resource": ErrorKind(
        "a limit was reached (operations, memory, size), or the machine had nothing left",
        "in the second case",
    ),
    "worker_lost": ErrorKind("each worker that started the command ended before it did; it is not started again", "no"),
    "cancelled": ErrorKind("the call was stopped from outside", "yes"),
    "playbook": ErrorKind("a child execution failed or was cancelled", "no"),
    "policy": ErrorKind("a rule of a task sequence ended it, or its retries are used up", "no"),
    "db_syntax": ErrorKind("SQL that does not parse, or names what is not there (SQLSTATE 42)", "no"),
    "db_constraint": ErrorKind("a constraint of the database was violated (SQLSTATE 23)", "no"),
    "db_transaction": ErrorKind(
        "a deadlock or serialization failure (SQLSTATE 40), or a failed transaction", "if SQLSTATE 40"
    ),
    "db_lock": ErrorKind("a lock could not be had in time (SQLSTATE 55P03)", "yes"),
    "db_resources": ErrorKind("the database is out of connections, memory or disk (SQLSTATE 53)", "yes"),
    "db_cancelled": ErrorKind("the statement was cancelled on the server (SQLSTATE 57014)", "yes"),
    "db_error": ErrorKind("any other failure of a statement", "no"),
    "unknown": ErrorKind("anything else; `code` names the exception", "no"),
}


def http_error_kind(status: int) -> tuple[str, bool]:
    """Return the kind of failure for an HTTP status (protocol/tasks.md#results), and whether the same request may
    succeed later."""
    if status in (401, 403):
        return "auth", False
    if status == 404:
        return "not_found", False
    if status == 408:
        return "timeout", True
    if status == 429:
        return "rate_limit", True
    return ("server_error", True) if status >= 500 else ("client_error", False)


def http_failure(text: str, status: int) -> ToolError:
    """Return the ToolError for an HTTP answer with an error status. A tool that cannot return the answer as its result
    raises this error."""
    kind, retryable = http_error_kind(status)
    return ToolError(text, kind=kind, retryable=retryable, code=str(status))


def plane_failure(text: str, error: ControlPlaneError) -> ToolError:
    """Return the ToolError for a request to the control plane that failed."""
    if not isinstance(error, ServerRefused):
        return ToolError(text, kind="connection", retryable=error.is_retryable)
    kind, retryable = http_error_kind(_BAD_GATEWAY if error.is_page else error.status)
    return ToolError(text, kind=kind, retryable=retryable, code=str(error.status))
