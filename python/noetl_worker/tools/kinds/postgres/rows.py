"""Running the statements of one text, and converting the first rows of each result to Python values.

psycopg's cursors hold every row of a result in memory before the first row is read. Here libpq gives the rows in
chunks, and rows beyond `max_rows` are dropped on arrival. psycopg's `stream()` also reads in chunks, but takes only one
statement. Rows are converted after all rows have arrived. Many or large values are converted in a thread, once the
worker has memory for the values.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any, Final

from noetl_worker.errors import DocumentError
from noetl_worker.process.room import room
from noetl_worker.process.threads import LARGE, off_loop, take_turns
from noetl_worker.text.json_text import memory_of
from noetl_worker.tools.kinds.postgres.address import library
from noetl_worker.tools.sql.sql import Batch

_ROWS_AT_A_TIME: Final = 100
_MANY_VALUES: Final = 10_000
"""Maximum number of values that are converted on the event loop (in 5 ms). More values are converted in a thread."""
_VALUE_BYTES: Final = 64
"""Approximate memory of the Python object for one value of a row, in bytes. The value's text is counted separately."""
UNCOUNTED: Final = ("SELECT", "SHOW", "EXPLAIN")
"""SQL commands whose row count means returned rows, not changed rows."""


async def run_text(connection: Any, text: str, batch: Batch, owner: object) -> None:
    """Run every statement of `text`, and record the results in `batch`.

    Args:
        connection: a connection from the pool.
        text: one or more statements.
        batch: receives the results of the statements.
        owner: the command to which the memory of the values is charged.

    Raises:
        psycopg.Error: a statement failed. `batch` has the statements before the first failed statement.
    """
    results = _Results(connection, batch)
    async with connection.lock:
        try:
            await connection.wait(_exchange(connection.pgconn, encoded(connection, text), results))
        except library().Error:
            await results.read(owner)
            raise
        await results.read(owner)
    if results.error is not None:
        raise results.error


async def read_result(connection: Any, result: Any, batch: Batch, command: str, count: int, owner: object) -> None:
    """Convert the rows of one complete result to Python values, and add them to `batch`.

    Args:
        connection: the Postgres connection that gave the result.
        result: libpq's result with all rows of one statement.
        batch: receives the rows.
        command: the server's status text for the statement, such as `INSERT 0 1`.
        count: number of rows that the statement returned or changed.
        owner: the command to which the memory of the values is charged.
    """
    results = _Results(connection, batch)
    results.take_rows(result)
    results.end_of_rows(result, command, count)
    await results.read(owner)


def encoded(connection: Any, text: str) -> bytes:
    """Return a text as bytes in the session's encoding. If the session's encoding is SQL_ASCII, return UTF-8, because
    SQL_ASCII allows any bytes."""
    encoding = connection.info.encoding
    return text.encode("utf-8" if encoding == "ascii" else encoding)


def _exchange(pgconn: Any, text: bytes, results: _Results) -> Generator[Any, Any, None]:
    """Send the SQL `text` to the server, and add the server's results to `results`. psycopg drives this generator. If
    the task is cancelled, psycopg also cancels the statement on the server."""
    psycopg = library()
    from psycopg import generators

    pgconn.send_query(text)
    if psycopg.capabilities.has_stream_chunked():
        pgconn.set_chunked_rows_mode(_ROWS_AT_A_TIME)
    else:
        pgconn.set_single_row_mode()
    yield from generators.send(pgconn)
    try:
        while (result := (yield from generators.fetch(pgconn))) is not None:
            if not results.take(result):
                return
    except psycopg.OperationalError:
        # The connection ended. An error that the server reported before is the better answer.
        if results.error is None:
            raise


class _Results:
    """Collects the results of one text of SQL, and converts the rows to Python values at the end."""

    def __init__(self, connection: Any, batch: Batch) -> None:
        self.error: Exception | None = None
        self._connection = connection
        self._received = 0
        """Bytes received up to the last row that the result keeps. Later rows are dropped; their bytes must not
        count, so `exchange.received` is set back to this number."""
        self._psycopg = library()
        self._status = self._psycopg.pq.ExecStatus
        self._encoding = connection.info.encoding
        self._reader = self._psycopg.adapt.Transformer(connection)
        self._json = {self._psycopg.adapters.types[name].oid for name in ("json", "jsonb")}
        self._batch = batch
        self._parts: list[tuple[Any, int]] = []
        """Chunks of rows (libpq's results) of the current statement, each with the number of its rows to convert. The
        rows after these are dropped."""
        self._wanted = 0
        self._values = 0
        self._work: list[partial[None]] = []
        """Functions that `read` will call, one for each statement. Each function adds its statement's result to
        `_batch`, which holds the command's statements and their results."""
        self._completion: tuple[str, int | None] = ("", None)

    def take(self, result: Any) -> bool:
        """Add one result from libpq. Return False if libpq can give no further result (COPY with STDIN or STDOUT)."""
        status, known = result.status, self._status
        if status in (known.TUPLES_CHUNK, known.SINGLE_TUPLE, known.TUPLES_OK):
            self.take_rows(result)
            if command := _command(result):
                self._completion = command, result.command_tuples
            if status == known.TUPLES_OK:
                # libpq sets the command in the last result with rows; the empty one after it may lack it.
                (command, count), self._completion = self._completion, ("", None)
                self.end_of_rows(result, command, count)
        elif status == known.COMMAND_OK:
            self._work.append(partial(self._batch.changed, _command(result), result.command_tuples))
        elif status in (known.COPY_IN, known.COPY_OUT, known.COPY_BOTH):
            self.error = self._psycopg.ProgrammingError("COPY with STDIN or STDOUT needs a client; use kind transfer")
            return False
        elif status != known.EMPTY_QUERY and self.error is None:
            self.error = self._psycopg.errors.error_from_result(result, encoding=self._encoding)
        return True

    def take_rows(self, result: Any) -> None:
        wanted = min(result.ntuples, self._batch.max_rows + 1 - self._wanted)
        if wanted > 0:
            self._parts.append((result, wanted))
            self._wanted += wanted
            self._values += wanted * result.nfields
            self._received = self._connection.exchange.received
        else:
            self._connection.exchange.received = self._received

    def end_of_rows(self, result: Any, command: str, count: int | None) -> None:
        parts, self._parts, self._wanted = self._parts, [], 0
        names = [(result.fname(number) or b"").decode(self._encoding) for number in range(result.nfields)]
        affected = None if command.startswith(UNCOUNTED) else count
        self._work.append(partial(self._put, command, names, parts, affected))

    async def read(self, owner: object) -> None:
        """Convert the rows of all results to Python values. Raises ToolError if the values take more memory than a
        command may have."""
        work, self._work = self._work, []
        results = [result for one in work if one.func == self._put for result in one.args[2]]
        size = self._connection.exchange.received or self._local_size(results)
        if size > LARGE or self._values > _MANY_VALUES:
            json_size = await off_loop(size, partial(self._memory_of_json, results))
            await room.take(size + json_size + self._values * _VALUE_BYTES, owner)
            await off_loop(LARGE + 1, lambda: [one() for one in work])
        else:
            for one in work:
                one()

    def _local_size(self, parts: list[tuple[Any, int]]) -> int:
        """Return the size in bytes of all values if the connection is a Unix socket, else 0. The size decides whether
        a thread converts the values. On TCP the number of received bytes decides instead. Also return 0 for more than
        `_MANY_VALUES` values, because a thread converts so many values whatever their size."""
        if self._values > _MANY_VALUES or not self._connection.pgconn.host.startswith(b"/"):
            return 0
        return sum(
            len(result.get_value(row, column) or b"")
            for result, wanted in parts
            for row in range(wanted)
            for column in range(result.nfields)
        )

    def _memory_of_json(self, parts: list[tuple[Any, int]]) -> int:
        size = 0
        for result, wanted in parts:
            for column in range(result.nfields):
                if result.ftype(column) in self._json:
                    values = (result.get_value(row, column) for row in range(wanted))
                    size += sum(_json_memory(value) for value in values if value and len(value) > LARGE)
        return size

    def _put(self, command: str, names: list[str], parts: list[tuple[Any, int]], affected: int | None) -> None:
        rows: list[tuple[Any, ...]] = []
        parts.reverse()
        while parts:
            result, wanted = parts.pop()
            self._reader.set_pgresult(result)
            for start in range(0, wanted, _ROWS_AT_A_TIME):
                rows += self._reader.load_rows(start, min(start + _ROWS_AT_A_TIME, wanted), tuple)
                take_turns()
        self._batch.returned(command, names, rows, affected=affected)


def _json_memory(value: bytes) -> int:
    """Return the bytes of memory that a JSON value needs: twice the size of the parsed value, because the serialised
    result exists at the same time."""
    try:
        return 2 * memory_of(value)
    except DocumentError:  # not parsed, so it stays text
        return len(value)


def _command(result: Any) -> str:
    return (result.command_status or b"").decode()
