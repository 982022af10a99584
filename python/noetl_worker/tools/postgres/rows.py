"""Runs the statements of one text and keeps as many rows as are wanted.

psycopg's cursors hold every row of a result in memory before the first is looked at; here rows come in small results,
and what is over `max_rows` is dropped on arrival. Several statements and small results together are what libpq has
and psycopg's `stream()` has not.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from noetl_worker.tools.postgres.address import library
from noetl_worker.tools.sql.sql import Batch

_ROWS_AT_A_TIME: Final = 100
UNCOUNTED: Final = ("SELECT", "SHOW", "EXPLAIN")
"""Commands whose count is that of the rows they give."""


async def run_text(connection: Any, text: str, batch: Batch) -> None:
    """Run every statement of `text` into `batch`.

    Raises:
        psycopg.Error: the first that failed; `batch` has the statements before it.
    """
    results = _Results(connection, batch)
    async with connection.lock:
        await connection.wait(_exchange(connection.pgconn, encoded(connection, text), results))
    if results.error is not None:
        raise results.error


def encoded(connection: Any, text: str) -> bytes:
    """A text in the encoding of the session; SQL_ASCII takes any bytes."""
    encoding = connection.info.encoding
    return text.encode("utf-8" if encoding == "ascii" else encoding)


def _exchange(pgconn: Any, text: bytes, results: _Results) -> Generator[Any, Any, None]:
    """Send and receive; psycopg drives it, and cancels the statement on the server when the task is cancelled."""
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
        # The connection ended. What the server reported before it did so is the better answer.
        if results.error is None:
            raise


class _Results:
    """Takes the results of a text one by one."""

    def __init__(self, connection: Any, batch: Batch) -> None:
        self.error: Exception | None = None
        self._connection = connection
        self._kept = 0
        """Bytes that came with what is kept."""
        self._psycopg = library()
        self._status = self._psycopg.pq.ExecStatus
        self._encoding = connection.info.encoding
        self._reader = self._psycopg.adapt.Transformer(connection)
        self._batch = batch
        self._rows: list[tuple[Any, ...]] = []
        self._completion: tuple[str, int | None] = ("", None)

    def take(self, result: Any) -> bool:
        """Whether there may be more."""
        status, known = result.status, self._status
        if status in (known.TUPLES_CHUNK, known.SINGLE_TUPLE, known.TUPLES_OK):
            self._keep(result)
            if command := _command(result):
                self._completion = command, result.command_tuples
            if status == known.TUPLES_OK:
                self._end_of_rows(result)
        elif status == known.COMMAND_OK:
            self._batch.changed(_command(result), result.command_tuples)
        elif status in (known.COPY_IN, known.COPY_OUT, known.COPY_BOTH):
            self.error = self._psycopg.ProgrammingError("COPY with STDIN or STDOUT needs a client; use kind transfer")
            return False
        elif status != known.EMPTY_QUERY and self.error is None:
            self.error = self._psycopg.errors.error_from_result(result, encoding=self._encoding)
        return True

    def _keep(self, result: Any) -> None:
        wanted = min(result.ntuples, self._batch.max_rows + 1 - len(self._rows))
        if wanted > 0:
            self._reader.set_pgresult(result)
            self._rows += self._reader.load_rows(0, wanted, tuple)
            self._kept = self._connection.exchange.received
        else:
            self._connection.exchange.received = self._kept

    def _end_of_rows(self, result: Any) -> None:
        rows, self._rows = self._rows, []
        # libpq notes the command in the last result that has rows; the empty one that ends them may lack it.
        (command, affected), self._completion = self._completion, ("", None)
        names = [(result.fname(number) or b"").decode(self._encoding) for number in range(result.nfields)]
        self._batch.returned(command, names, rows, affected=None if command.startswith(UNCOUNTED) else affected)


def _command(result: Any) -> str:
    return (result.command_status or b"").decode()
