"""Wheels and an index of them, made by the tests: no network is needed."""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def wheel(directory: Path, name: str, version: str, files: Mapping[str, str], needs: Sequence[str] = ()) -> Path:
    """Write a wheel of pure Python."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {one}\n" for one in needs)
    every = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{info}/RECORD,,"]
    made = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in every.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(text.encode())}")
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return made


class Index:
    """A package index on loopback: `/simple/NAME/` lists the wheels of a directory.

    With a `login` it asks for that. Files wait while `hold` is not set; `asked_for_a_file` tells of the first.
    """

    def __init__(self, files: Path) -> None:
        self.files, self.login, self.requests = files, "", 0
        self.hold, self.asked_for_a_file = threading.Event(), threading.Event()
        self.hold.set()
        self.port = 0

    def url(self, login: str = "") -> str:
        return f"http://{login}{'@' if login else ''}127.0.0.1:{self.port}/simple"


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *given: object, index: Index) -> None:
        self.index = index
        super().__init__(*given, directory=str(index.files))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.index.requests += 1
        wanted = f"Basic {base64.b64encode(self.index.login.encode()).decode()}"
        if self.index.login and self.headers["authorization"] != wanted:
            self.send_error(401)
        elif self.path.startswith("/simple/"):
            self._list(self.path.split("/")[2])
        else:
            self.index.asked_for_a_file.set()
            self.index.hold.wait(60)
            super().do_GET()

    def _list(self, name: str) -> None:
        files = [one.name for one in self.index.files.glob(f"{name.replace('-', '_')}-*")]
        if not files:
            self.send_error(404)
            return
        page = "".join(f'<a href="/{file}">{file}</a>\n' for file in files).encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(files: Path) -> Iterator[Index]:
    index = Index(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, index=index))
    server.daemon_threads = True
    index.port = server.server_address[1]
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield index
    finally:
        index.hold.set()
        server.shutdown()
        server.server_close()
        serving.join()
