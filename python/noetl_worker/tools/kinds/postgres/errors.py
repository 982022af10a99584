"""Conversion of an error that Postgres reports to a ToolError: message, SQLSTATE, position, detail and hint."""

from __future__ import annotations

import re
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.kinds.postgres.address import library
from noetl_worker.tools.sql import sql

_KINDS: Final = (
    ("08", "connection", True),
    ("28", "auth", False),
    ("40", "db_transaction", True),
    ("25P02", "db_transaction", False),
    ("53", "db_resources", True),
    ("55P03", "db_lock", True),
    ("57014", "db_cancelled", True),
    ("57P", "connection", True),
    ("23", "db_constraint", False),
    ("42501", "auth", False),
    ("42", "db_syntax", False),
)
"""SQLSTATE prefix, kind of failure, and True if the same statement may succeed later. The first matching row counts."""
_PROTOCOL: Final = "08P01"
_WRONG_NUMBER: Final = "bind message supplies"
_NO_PASSWORD: Final = "no password supplied"
_REFUSED: Final = (
    "authentication failed",
    _NO_PASSWORD,
    "no pg_hba.conf entry",
    "is not permitted to log in",
)
_WRONG: Final = ("invalid ", "sslmode value", "root certificate file")


def connection_failure(error: Exception) -> ToolError:
    """Return the ToolError for a failed connection. The text of `error` decides the kind of failure, because libpq
    gives no SQLSTATE for it."""
    message = str(error)
    if any(text in message for text in _REFUSED) or ("role" in message and "does not exist" in message):
        own = "; give 'auth' or 'password': PGPASSWORD and ~/.pgpass of the worker are not for playbooks"
        return ToolError(f"cannot connect: {message}{own if _NO_PASSWORD in message else ''}", kind="auth")
    if "database" in message and "does not exist" in message:
        return ToolError(f"cannot connect: {message}", kind="not_found")
    if any(text in message for text in _WRONG):
        return ConfigurationError(f"postgres: cannot connect: {message}")
    return ToolError(f"cannot connect: {message}", kind="connection", retryable=True)


def is_statement_timeout(error: Any) -> bool:
    """Return True if the server ended the statement because of `statement_timeout`, ours or the playbook's own."""
    return error.sqlstate == "57014" and "statement timeout" in str(error.diag.message_primary)


def statement_failure(error: Any, text: str, done: int = 0, *, has_params: bool = False) -> ToolError:
    """Return the ToolError for a failed statement of `text`. The SQLSTATE decides the error's kind.

    `done`: number of statements that succeeded before. `has_params`: leave out the error's position, because a
    statement with parameters reaches the server as another text.
    """
    psycopg = library()
    state = error.sqlstate or ""
    if not state:
        if isinstance(error, psycopg.OperationalError):
            lost = "the connection was lost; look whether the statement took effect before you repeat it"
            return ToolError(f"{sql.preview(text)}: {lost}: {error}", kind="connection")
        return ToolError(f"{sql.preview(text)}: {error}{_remedy(str(error))}", kind="db_error")
    which = f"statement {done + 1}: " if done else ""
    place = "" if has_params else _place(error.diag.statement_position, text)
    parts = [f"{which}{error.diag.message_primary} (SQLSTATE {state}){place}"]
    details = (("DETAIL", error.diag.message_detail), ("HINT", error.diag.message_hint), ("WHERE", error.diag.context))
    parts += [f"{name}: {message}" for name, message in details if message]
    if state == _PROTOCOL and _WRONG_NUMBER in str(error.diag.message_primary):
        parts.append("give one value in 'params' for each place holder $1, $2")
    kind, retryable = _sqlstate_kind(state, error.diag.severity_nonlocalized)
    return ToolError(f"{sql.preview(text)}: {' | '.join(parts)}", kind=kind, retryable=retryable, code=state)


def _sqlstate_kind(state: str, severity: str | None) -> tuple[str, bool]:
    """Return the kind of failure that a SQLSTATE stands for, and True if the same statement may succeed later."""
    if state == _PROTOCOL and severity == "ERROR":
        # If client and server misunderstand each other, the server ends the session (FATAL). A mere ERROR with the
        # connection intact is about the content, such as two values for three placeholders: a retry changes nothing.
        return "db_syntax", False
    return next(((kind, again) for prefix, kind, again in _KINDS if state.startswith(prefix)), ("db_error", False))


def _remedy(message: str) -> str:
    """Return advice on writing placeholders, if the message says that psycopg did not understand them. Return an empty
    text for another error."""
    if re.search(r"the query has \d+ placeholders? but \d+ parameters? ", message):
        return "; give one value in 'params' for each place holder ($1, $2 or %s), and write %% for a percent sign"
    if "are allowed as placeholders" in message or "incomplete placeholder" in message:
        return "; beside %s write %% for a percent sign, or use $1, $2 as place holders"
    return ""


def _place(position: str | None, text: str) -> str:
    """Return a place like ` at line 2, column 8` in the playbook's text, or an empty text without a position."""
    if position is None or not position.isdigit() or not 0 < int(position) <= len(text) + 1:
        return ""
    before = text[: int(position) - 1]
    return f" at line {before.count(chr(10)) + 1}, column {len(before) - (before.rfind(chr(10)) + 1) + 1}"
