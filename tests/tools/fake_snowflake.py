"""The names of snowflake-connector-python that the worker uses, over an in-memory DuckDB."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from noetl_worker.tools.sql.split import statements

CODES = {"INTEGER": 0, "BIGINT": 0, "DOUBLE": 1, "VARCHAR": 2, "DATE": 3, "JSON": 5, "TIMESTAMP": 8, "BOOLEAN": 13}


class Column(NamedTuple):
    """One entry of a cursor's description."""

    name: str
    type_code: int
    precision: int | None
    scale: int | None


class Error(Exception):
    def __init__(self, text: str, errno: int = 0, sqlstate: str = "", sfqid: str = "") -> None:
        super().__init__(text)
        self.errno, self.sqlstate, self.sfqid = errno, sqlstate, sfqid


class DatabaseError(Error): ...


class OperationalError(DatabaseError): ...


class ProgrammingError(DatabaseError): ...


class FakeSnowflake:
    """One account: what was connected with, what was run, and the tables (`database`)."""

    def __init__(self) -> None:
        import duckdb

        self.database = duckdb.connect()
        self.connected: list[dict[str, Any]] = []
        self.ran: list[str] = []
        self.closed = 0
        self.refuse: Exception | None = None
        self.fail_to_close: Exception | None = None
        self.fail: dict[str, Exception] = {}
        self.before: Callable[[], None] = lambda: None
        self.before_close: Callable[[], object] = lambda: None

    def connect(self, **settings: Any) -> _Connection:
        self.connected.append(settings)
        if self.refuse is not None:
            raise self.refuse
        return _Connection(self)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it where `import snowflake.connector` looks."""
        package, connector = types.ModuleType("snowflake"), types.ModuleType("snowflake.connector")
        errors, text = types.ModuleType("snowflake.connector.errors"), types.ModuleType("snowflake.connector.util_text")
        vars(package).update(connector=connector)
        vars(connector).update(connect=self.connect, errors=errors, util_text=text)
        vars(errors).update(
            {kind.__name__: kind for kind in (Error, DatabaseError, OperationalError, ProgrammingError)}
        )
        text.split_statements = lambda buffer: [(one, False) for one in statements(buffer.read())]
        for module in (package, connector, errors, text):
            monkeypatch.setitem(sys.modules, module.__name__, module)


class _Connection:
    def __init__(self, account: FakeSnowflake) -> None:
        self._account = account

    def cursor(self) -> _Cursor:
        return _Cursor(self._account)

    def close(self) -> None:
        self._account.before_close()
        if self._account.fail_to_close is not None:
            raise self._account.fail_to_close
        self._account.closed += 1


class _Cursor:
    def __init__(self, account: FakeSnowflake) -> None:
        self._account = account
        self._rows: Iterator[Sequence[Any]] = iter(())
        self.description: list[Column] = []
        self.rowcount: int | None = None

    def execute(self, statement: str, params: Any = None) -> None:
        import duckdb

        self._account.before()
        self._account.ran.append(statement)
        for marker, error in self._account.fail.items():
            if marker in statement:
                raise error
        if statement == "SELECT CURRENT_TRANSACTION()":
            self.description = [Column("CURRENT_TRANSACTION()", 2, None, None)]
            self._rows = iter([(self._open_transaction(),)])
            return
        try:
            told = " RETURNING merge_action" if statement.startswith("MERGE") else ""
            ours = statement.replace("%s", "?").replace("use schema ", "use ")
            result = self._account.database.execute(ours + told, params)
        except duckdb.Error as error:
            raise ProgrammingError(str(error), 2003, "42S02", "01b2-query") from error
        if statement.startswith("MERGE"):
            self._merged([row[0] for row in result.fetchall()])
            return
        described = [(column[0], str(column[1])) for column in result.description or ()]
        if [name for name, _ in described] in (["Count"], ["Success"]):
            rows = result.fetchall()
            self.rowcount = rows[0][0] if rows else None
            self.description = [Column("number of rows inserted", 0, None, 0)]
            return
        self.description = [
            Column(name if " " in name else name.upper(), CODES.get(kind, 2), 38, 0) for name, kind in described
        ]
        self._rows = iter(result.fetchall())

    def _open_transaction(self) -> str | None:
        import duckdb

        try:
            self._account.database.begin()
        except duckdb.TransactionException:
            return "1700000000000000000"
        self._account.database.rollback()
        return None

    def _merged(self, actions: list[str]) -> None:
        names = ("number of rows inserted", "number of rows updated")
        self.description = [Column(name, 0, None, 0) for name in names]
        self._rows = iter([(actions.count("INSERT"), actions.count("UPDATE"))])

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._account.ran.append(statement)
        self._account.database.executemany(statement.replace("%s", "?"), rows)

    def fetchmany(self, size: int) -> list[Sequence[Any]]:
        return [row for _, row in zip(range(size), self._rows, strict=False)]
