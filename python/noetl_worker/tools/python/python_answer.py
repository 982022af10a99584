"""The worker's side of the socket to a command's process: the worker sends requests and receives answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from noetl_worker.errors import DocumentError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text
from noetl_worker.tools.process import process
from noetl_worker.tools.python.python_exchange import LENGTH, PROCESS_ID

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class AnswerTooLong(Exception):
    """Error: a command's answer is larger than MAX_ANSWER_BYTES, or its values need too much memory."""


def frame_of(request: Mapping[str, JsonValue]) -> bytes:
    body = json_text.dumps(request)
    return LENGTH.pack(len(body)) + body


class PythonAnswer(process.Capture):
    """Reader for a command's socket: first the process id of the command, then its answers."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, MAX_ANSWER_BYTES)
        self.process: int | None = None
        """Process id of the command; None: the command has not begun."""
        self.on_answer: Callable[[], None] | None = None
        """Callback for each complete answer of the process; a line break ends an answer. None if the process gets only
        one request."""

    def _keep(self, chunk: bytes) -> None:
        if self.process is None:
            (self.process,) = PROCESS_ID.unpack_from(chunk)
            chunk = chunk[PROCESS_ID.size :]
        super()._keep(chunk)
        if self.on_answer is not None and chunk.endswith(b"\n"):
            self.on_answer()


class Conversation:
    """A series of requests to the process of one command. Each request waits for the answer to the previous request.
    `PythonRunner.run` starts the conversation."""

    def __init__(self) -> None:
        self._asked: asyncio.Future[Mapping[str, JsonValue] | None] = asyncio.get_running_loop().create_future()
        self._request: Request | None = None
        self._answer: PythonAnswer | None = None

    def begin(self, request: Request, answer: PythonAnswer) -> None:
        """Begin to receive what the command's process answers to `request`, the first request. `answer` reads the
        process's socket. Call this again only if the command did not start and another process gets the request."""
        self._request, self._answer = request, answer
        answer.on_answer = self._told
        answer.watch()

    def ask(self, request: Mapping[str, JsonValue]) -> None:
        """Send the next request to the command's process. The previous request must have been answered."""
        assert self._request is not None
        self._asked = asyncio.get_running_loop().create_future()
        self._request.add(frame_of(request))

    async def answered(self, run: asyncio.Future[process.Finished]) -> Mapping[str, JsonValue] | None:
        """Wait for the answer to the last request and return it. Return None if the command ended without an answer.

        Raises:
            AnswerTooLong: the answer is over MAX_ANSWER_BYTES.
            ToolError: the command failed with this error. `run` is the future of the command's result.
        """
        either: set[asyncio.Future[Any]] = {run, self._asked}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._asked.done():
            return self._asked.result()
        run.result()
        return None

    def end(self) -> None:
        """Tell the command's process that the worker sends no further request."""
        if self._request is not None:
            self._request.finish()

    def _told(self) -> None:
        assert self._answer is not None
        if self._asked.done():  # an answer to no request
            return
        try:
            self._asked.set_result(parsed(self._answer))
        except AnswerTooLong as error:
            self._asked.set_exception(error)
        self._answer.clear()


class Request:
    """A request that the worker sends to a command's process. Bytes that do not fit into the socket are sent later."""

    def __init__(self, channel: socket.socket, frame: bytes) -> None:
        self._channel = channel
        self._rest = memoryview(frame)
        self._loop: asyncio.AbstractEventLoop | None = None

    def send(self) -> None:
        try:
            self._rest = self._rest[self._channel.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # the child has ended: its exit code says why
            self._rest = self._rest[:0]
        if self._rest and self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_writer(self._channel.fileno(), self.send)
        elif not self._rest:
            self._wait_no_more()

    def add(self, frame: bytes) -> None:
        """Queue another request for the command's process, after the bytes that are still unsent. Send as many bytes as
        the socket takes now.

        `frame`: the request as bytes (`frame_of`).
        """
        self._rest = memoryview(bytes(self._rest) + frame)
        self.send()

    def finish(self) -> None:
        """Tell the command's process that no further request follows. Answers of the process may still arrive."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """Shut the socket down in both directions. If the command has not begun by now, it never runs, because it must
        first report its beginning on this socket."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._wait_no_more()
        self._channel.close()

    def _wait_no_more(self) -> None:
        if self._loop is not None:
            self._loop.remove_writer(self._channel.fileno())
            self._loop = None


def parsed(answer: process.Capture) -> Mapping[str, JsonValue] | None:
    """Return the JSON object that a command's process has sent as its answer. Return None if the process ended without
    a complete answer. Raises AnswerTooLong."""
    if answer.left_out:
        raise AnswerTooLong(f"over {MAX_ANSWER_BYTES >> 20} MiB")
    data = answer.data()
    try:
        value = json_text.loads(data) if data else None
    except DocumentError as error:
        if error.code == "json_size":
            raise AnswerTooLong(str(error)) from error
        return None  # killed while it wrote
    return value if isinstance(value, dict) else None
