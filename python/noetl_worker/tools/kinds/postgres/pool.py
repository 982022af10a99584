"""Open connections to Postgres, kept between commands, with one pool for each address.

psycopg_pool is not used, because psycopg_pool connects in background tasks. It reports a wrong password or a refused
connection as "no connection within the timeout", and goes on trying. psycopg_pool also resets a connection in a task
that the next command waits for (docs/decisions.md has the figures). Here the command itself connects and sees the
server's message. The reset is one text of SQL, sent when a command is over. The next command reads the server's answer,
which has arrived by then.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio

from noetl_worker.errors import ToolError
from noetl_worker.tools.kinds.postgres.address import library
from noetl_worker.tools.kinds.postgres.connection import connect

_ANSWER_S: Final = 5.0
_RESET: Final = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; "
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; "
)
"""SQL that resets a connection after a command: the statements that DISCARD ALL stands for. DISCARD ALL itself must be
the only statement of its text, but this text also gets SET statements for the session."""


@dataclass(kw_only=True, eq=False)
class ConnectionPools:
    """The connection pools of one worker, one for each address."""

    max_size: int = 8
    """Maximum number of connections to one address. If all are in use, a further command waits, within the command's
    own timeout. To have fewer connections, limit how many commands of the kind run at a time."""
    max_idle_s: float = 60.0
    """Seconds after which an unused connection is closed."""
    max_age_s: float = 1800.0
    """Age in seconds after which a connection is not used again, so that load balancers and changed roles take
    effect."""
    ping_after_s: float = 20.0
    """Idle seconds after which a connection is tested before use, because a firewall may have dropped the
    connection."""

    def __post_init__(self) -> None:
        self._pools: dict[bytes, _Pool] = {}
        self._salt = secrets.token_bytes(16)
        self._reaper: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def connection(self, conninfo: str, session: str = "") -> AsyncIterator[Any]:
        """Provide a connection for one command. `session`: SET statements that hold during the command.

        Settings, locks and temporary tables end with the command: the connection is then reset. A connection is closed
        instead if the command left a transaction open. Raises the errors of `connect`.
        """
        pool = self._pool(conninfo)
        member = await pool.take(session)
        try:
            yield member.connection
        finally:
            pool.release(member)

    async def aclose(self) -> None:
        """Close every idle connection. A connection in use is closed when its command ends."""
        self._discard_all()

    def open_connections(self) -> int:
        """Return how many connections are open, idle or in use."""
        return sum(len(pool.idle) + pool.in_use for pool in self._pools.values())

    def _pool(self, conninfo: str) -> _Pool:
        loop = asyncio.get_running_loop()
        if any(pool.loop is not loop for pool in self._pools.values()):
            self._discard_all()  # a connection belongs to the loop that opened it
        key = hashlib.blake2b(conninfo.encode(), key=self._salt).digest()
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(conninfo, loop, self)
        if self._reaper is None:
            self._reaper = loop.call_later(self.max_idle_s / 2, self._reap)
        return pool

    def _reap(self) -> None:
        for key, pool in list(self._pools.items()):
            pool.close_idle(self.max_idle_s)
            if pool.is_empty():
                del self._pools[key]
        self._reaper = None
        if self._pools:
            self._reaper = asyncio.get_running_loop().call_later(self.max_idle_s / 2, self._reap)

    def _discard_all(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


@dataclass(slots=True)
class _Member:
    connection: Any
    session: str
    """SET statements in force on the connection, repeated after its reset."""
    born: float
    idle_since: float = 0.0


class _Pool:
    """The connections to one address, at most `max_size`. A command preferably gets an idle connection that already
    has the command's SET statements (`session`), else the most recently used idle connection, else a new connection."""

    def __init__(self, conninfo: str, loop: asyncio.AbstractEventLoop, limits: ConnectionPools) -> None:
        self.loop = loop
        self.idle: list[_Member] = []
        self.in_use = 0
        self.is_closed = False
        self._psycopg = library()
        self._conninfo = conninfo
        self._places = asyncio.Semaphore(limits.max_size)
        self._waiting = 0
        self._limits = limits

    def is_empty(self) -> bool:
        return not self.idle and not self.in_use and not self._waiting

    async def take(self, session: str) -> _Member:
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        self.in_use += 1
        try:
            while self.idle:
                # prefer a connection with the same settings, then the most recently used
                member = max(self.idle, key=lambda one: (one.session == session, one.idle_since))
                self.idle.remove(member)
                if await self._ready(member, session):
                    return member
            return await self._opened(session)
        except BaseException:
            self._free()
            raise

    def release(self, member: _Member) -> None:
        """Take a connection back from a command, and send the SQL that resets the connection for the next command. The
        next command reads the server's answer to this SQL."""
        self._free()
        pq, pgconn, now = self._psycopg.pq, member.connection.pgconn, time.monotonic()
        if (
            pgconn.status == pq.ConnStatus.OK
            and pgconn.transaction_status == pq.TransactionStatus.IDLE
            and not self.is_closed
            and now - member.born < self._limits.max_age_s
            and _reset_sent(self._psycopg, member)
        ):
            member.idle_since = now
            self.idle.append(member)
        else:
            pgconn.finish()

    def close(self) -> None:
        """Close the idle connections now. Every other connection is closed when its command ends."""
        self.is_closed = True
        self.close_idle(0.0)

    def close_idle(self, longer_than_s: float) -> None:
        now = time.monotonic()
        for member in [member for member in self.idle if now - member.idle_since >= longer_than_s]:
            self.idle.remove(member)
            member.connection.pgconn.finish()

    def _free(self) -> None:
        self.in_use -= 1
        self._places.release()

    async def _ready(self, member: _Member, session: str) -> bool:
        """Prepare an idle connection for a command: read the answer to the reset, test the connection and apply
        `session`. If any of this fails, close the connection and return False."""
        psycopg = self._psycopg
        idle_s = time.monotonic() - member.idle_since
        is_ready = False
        try:
            if idle_s < self._limits.max_idle_s and await _reset_answer(psycopg, member):
                member.connection.pgconn.consume_input()  # raises if the server has closed the connection
                if idle_s > self._limits.ping_after_s:
                    # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that arrives with the answer
                    with anyio.fail_after(_ANSWER_S):
                        await member.connection.execute("")
                if member.session != session:
                    await member.connection.execute(f"RESET ALL; {session}")
                    member.session = session
                is_ready = True
        except (psycopg.Error, ToolError, OSError, TimeoutError):
            is_ready = False  # the server or a firewall ended the connection: the caller uses another connection
        finally:
            if not is_ready:
                member.connection.pgconn.finish()
        return is_ready

    async def _opened(self, session: str) -> _Member:
        connection = await connect(self._conninfo)
        try:
            if session:
                await connection.execute(session)
        except BaseException as error:
            connection.pgconn.finish()
            if isinstance(error, self._psycopg.Error):
                text = f"cannot set statement_timeout or search_path: {error}: check `schema` and the server's log"
                raise ToolError(text, kind="connection", retryable=True) from error
            raise
        return _Member(connection, session, time.monotonic())


def _reset_sent(psycopg: Any, member: _Member) -> bool:
    try:
        member.connection.pgconn.send_query((_RESET + member.session).encode())
        return bool(member.connection.pgconn.flush() == 0)
    except psycopg.Error:
        return False


async def _reset_answer(psycopg: Any, member: _Member) -> bool:
    """Read the server's answer to the SQL that reset the connection after its last command. Return False if the reset
    failed."""
    pgconn = member.connection.pgconn
    statuses = (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK)
    went_through = True
    pgconn.consume_input()
    while True:
        if pgconn.is_busy():
            with anyio.fail_after(_ANSWER_S):
                result = await member.connection.read(psycopg.generators.fetch(pgconn))
        else:
            result = pgconn.get_result()
        if result is None:
            return went_through and pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        went_through = went_through and result.status in statuses
