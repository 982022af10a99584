"""Running the statements of a SQL script one after the other, in the DuckDB process of the script's command."""

from __future__ import annotations

import re
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.kinds.duckdb.values import reading, with_json
from noetl_worker.tools.sql import split as sql_split
from noetl_worker.tools.sql import sql

_KINDS: Final = (
    ("IntegrityError", "db_constraint"),
    ("TransactionException", "db_transaction"),
    ("OutOfMemoryException", "resource"),
    ("HTTPException", "connection"),
    ("ProgrammingError", "db_syntax"),
)
"""Name of a DuckDB error class or of its base class -> kind of failure. Any other error is db_error."""
_MISPLACED: Final = ("no transaction is active", "start a transaction within a transaction")
_COUNTED_AT_A_TIME: Final = 10_000
_WITH_RETURNING: Final = ("INSERT", "UPDATE", "DELETE", "MERGE_INTO")
_RETURNING_OR_BRACKET: Final = re.compile(r"[()]|\breturning\b", re.IGNORECASE)


def run_script(duckdb: Any, connection: Any, batch: sql.Batch, text: str, params: Any) -> None:
    """Run every statement of `text`, and record the results in `batch`. The last statement gets `params`.

    Raises:
        ConfigurationError: `text` has no statement.
        ToolError: a statement failed. The error text has the statement and DuckDB's report.
    """
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise ToolError(f"SQL does not parse: {error}", kind="db_syntax") from error
    if not statements:
        raise ConfigurationError("'query' has no statement; write one")
    for number, statement in enumerate(statements, start=1):
        shown = sql.preview(statement.query)
        try:
            _run_one(duckdb, connection, batch, statement, params if number == len(statements) else [])
        except (duckdb.Error, OverflowError) as error:
            raise statement_failure(error, f"statement {number} ({shown})") from error
    _check_ended(duckdb, connection, text)


def _check_ended(duckdb: Any, connection: Any, text: str) -> None:
    """Raise ToolError if the script `text` left a transaction open. Closing the connection would roll the transaction
    back without an error."""
    try:
        connection.begin()  # only a second BEGIN shows that one is open
    except duckdb.TransactionException as error:
        raise sql.left_open(text) from error
    connection.rollback()


def statement_failure(error: Any, what: str) -> ToolError:
    """Return the ToolError for an error of DuckDB, or for a value that Python cannot hold (OverflowError). `what` names
    the statement."""
    if isinstance(error, OverflowError):
        return ToolError(f"{what}: a value is too large for Python: {error}: CAST it to VARCHAR", kind="db_error")
    names = {base.__name__ for base in type(error).__mro__}
    kind = next((kind for name, kind in _KINDS if name in names), "db_error")
    # A misplaced BEGIN, COMMIT or ROLLBACK fails at each try, and whatever was committed before it stays.
    again = kind == "db_transaction" and not any(words in str(error) for words in _MISPLACED)
    return ToolError(f"{what}: {error}", kind=kind, code=type(error).__name__, retryable=again)


def _run_one(duckdb: Any, connection: Any, batch: sql.Batch, statement: Any, params: Any) -> None:
    shown = sql.preview(statement.query)
    special = reading(duckdb, connection, statement, params)
    result = connection.execute(special.text if special else statement, params or None)
    described = result.description or ()
    columns = list(special.names) if special else [column[0] for column in described]
    rows = result.fetchmany(batch.max_rows + 1) if columns else []
    if columns == ["Count"] and _counts(statement):
        batch.changed(shown, rows[0][0] if rows else 0)
        if not rows:
            batch.samples[-1] = []
    elif columns and not (columns == ["Success"] and not rows and _may_have_no_result(statement)):
        types = [str(column[1]) for column in described[: len(columns)]]
        given = special.rows(rows) if special else rows
        affected = len(rows) + _number_of_more(result) if _is_returning(statement) else None
        batch.returned(shown, columns, with_json(given, types), first=given, affected=affected)
    else:
        batch.changed(shown, None)


def _number_of_more(result: Any) -> int:
    count = 0
    while rows := result.fetchmany(_COUNTED_AT_A_TIME):
        count += len(rows)
    return count


def _counts(statement: Any) -> bool:
    """Return True if a statement's only result column `Count` is DuckDB's number of changed rows. Return False if the
    author selected a column of this name.

    DuckDB's parser tells which kinds of result a statement may return, but not which it will return. An INSERT may
    return rows or the number of changed rows, so this function looks for RETURNING, without which no rows come. For
    PIVOT, which DuckDB splits into several statements (MULTI), the parser names every kind of result. That says nothing
    about the actual result, so this function always returns False for PIVOT.
    """
    can_change = any(kind.name == "CHANGED_ROWS" for kind in statement.expected_result_type)
    return can_change and statement.type.name != "MULTI" and not _is_returning(statement)


def _may_have_no_result(statement: Any) -> bool:
    """Return True if a statement may have no result table: it is no SELECT and has no RETURNING. An empty column
    `Success`, which DuckDB gives for a statement such as SET or ATTACH, is then left out of the result."""
    return statement.type.name != "SELECT" and not _is_returning(statement)


def _is_returning(statement: Any) -> bool:
    if statement.type.name not in _WITH_RETURNING:
        return False
    depth = 0
    for token in _RETURNING_OR_BRACKET.findall(sql_split.bare(statement.query)):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0 and token not in "()":  # deeper, the RETURNING belongs to a nested statement
            return True
    return False
