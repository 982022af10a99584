"""The template process of the `python` tool, and the child it forks for each command.

Run by path with `-I`, so it imports the standard library only: user code must not find the worker's own modules
loaded, and a fork is as fast as this process is small. The worker's side is `python_runner.py`; the protocol:

* control socket, worker -> here: 10 bytes (op, command number, signal). `F` comes with three descriptors
  (socket of the command, stdout, stderr): fork, for Python code. `E`: the same, for a program that the request names
  (program, argv, env, cwd). `K`: send the signal to the command's process group. `A`: answer. `S` comes with a control
  socket: fork a supervisor, which serves that one.
* control socket, here -> worker: 17 bytes (op, command number, value). `P` process id, `X` exit status as
  `subprocess` has it (negative for a signal); a fork that fails is `X` with 255. `A`: as asked for.
* socket of the command: one JSON request in (8 bytes of length before it), one JSON answer out, to its end. The request
  is sent after the `P`: a command whose process id is not known has had no effect.

When the worker goes away, the control socket ends: everything is killed and this process ends. With a confinement
(`confinement.py`) each command has a supervisor: a fork of the template that runs one command at a time. Whatever the
command starts stays below it, whichever session it goes to, and has ended before the `X`; what a killed one leaves, the
template ends.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import datetime
import faulthandler
import gc
import importlib
import inspect
import json
import linecache
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
import types
import uuid
from contextlib import suppress
from typing import Any, NoReturn

REQUEST = struct.Struct("!cQB")
ANSWER = struct.Struct("!cQq")
LENGTH = struct.Struct("!Q")
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - no pathlib in every child
PROCESS = os.path.join(os.path.dirname(HERE), "process")  # noqa: PTH118, PTH120
VALUES = runpy.run_path(os.path.join(HERE, "python_values.py"))  # noqa: PTH118
CODE = runpy.run_path(os.path.join(HERE, "python_code.py"))  # noqa: PTH118
FILE_NAME = CODE["FILE_NAME"]
set_handler = inspect.unwrap(signal.signal)
"""Without its conversions to enums: each page of memory that a child writes to is copied for it."""
PROGRAM = runpy.run_path(os.path.join(PROCESS, "program.py"))  # noqa: PTH118
CONFINEMENT = runpy.run_path(os.path.join(PROCESS, "confinement.py"))  # noqa: PTH118


# ── the template: forks, signals, reaps ─────────────────────────────────────────────────────────


class Template:
    """One thread, no locks: a fork of it is safe."""

    def __init__(self, control: socket.socket, *, is_confined: bool, is_supervisor: bool) -> None:
        self.control = control
        self.is_confined = is_confined
        self.is_supervisor = is_supervisor
        self.running: dict[int, int] = {}
        """Process id -> number of the command."""
        control.set_inheritable(False)
        self.wake, self.wake_write = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self.wake_write, False)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # the worker decides; not SIG_IGN, which programs would inherit

    def serve(self) -> list[int]:
        """Until the worker closes the control socket. Returns in a forked child, with its descriptors."""
        selector = selectors.DefaultSelector()
        selector.register(self.control, selectors.EVENT_READ)
        selector.register(self.wake, selectors.EVENT_READ)
        set_streams()  # here, not in each child
        gc.collect()
        gc.freeze()  # the collector must not write to pages that the children share
        while True:
            for key, _ in selector.select():
                if key.fileobj is self.control:
                    child = self.handle_request()
                    if child is not None:
                        selector.close()
                        return child
                else:
                    drain(self.wake)
            self.reap()

    def handle_request(self) -> list[int] | None:
        """Handle one request; in a forked child, the descriptors it is to work with."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.control, REQUEST.size, 3)
        except ConnectionError:  # killed with answers of ours unread
            data, descriptors = b"", []
        if not data:
            self.kill_all()
            os._exit(0)
        op, number, value = REQUEST.unpack(data)
        if op == b"K":
            self.send_signal(number, value)
        elif op == b"A":
            self.answer(op, number, value)
        elif op == b"E":
            self.start_program(number, descriptors)
        else:
            return self.start_fork(number, descriptors)
        return None

    def start_fork(self, number: int, descriptors: list[int]) -> list[int] | None:
        """Of a command (three descriptors) or of a supervisor (one)."""
        pid = self.fork() if descriptors else -1
        if pid == 0:
            return descriptors
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self.running[pid] = number
            self.answer(b"P", number, pid)
        else:
            self.answer(b"X", number, 255)
        return None

    def start_program(self, number: int, descriptors: list[int]) -> None:
        """Without a fork of this process, which costs more than the program's start."""
        self.answer(b"P", number, 0)  # no process id yet: what is to be killed is ours to kill
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        channel, out, err = descriptors
        try:
            pid = PROGRAM["spawn"](json.loads(receive(channel)), out, err)
        except EOFError:  # called off
            self.answer(b"X", number, -signal.SIGKILL)
        except (OSError, ValueError) as error:
            send(channel, {"error": str(error)})
            self.answer(b"X", number, 127)
        else:
            self.running[pid] = number
        for descriptor in descriptors:
            os.close(descriptor)

    def fork(self) -> int:
        """As os.fork, but -1 when there is no process to be had; the child lets go of the worker."""
        try:
            pid = os.fork()
        except OSError:
            return -1
        if pid == 0:
            signal.set_wakeup_fd(-1)
            os.close(self.wake)
            os.close(self.wake_write)
            self.control.close()
        return pid

    def send_signal(self, number: int, value: int) -> None:
        for pid, command in self.running.items():
            if command == number:
                kill_group(pid, value)

    def reap(self) -> None:
        """End what a command left behind, before its process id can belong to anybody else."""
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                number = self.running.get(ended.si_pid)
                if number is not None:
                    kill_group(ended.si_pid, signal.SIGKILL)
                _, status = os.waitpid(ended.si_pid, 0)
                self.running.pop(ended.si_pid, None)
                if self.is_confined and (number is not None or not self.is_supervisor):
                    self.kill_left_behind()
                if number is not None:
                    self.answer(b"X", number, os.waitstatus_to_exitcode(status))

    def kill_left_behind(self) -> None:
        """A child of ours that is no command is what one left; its own children become ours when it ends."""
        with suppress(ChildProcessError):
            while not self.running:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    if not CONFINEMENT["kill_children"](()):
                        return  # the system does not say which there are: logged at the worker's start
                    os.waitpid(-1, 0)
            CONFINEMENT["kill_children"](self.running)

    def kill_all(self) -> None:
        for pid in self.running:
            kill_group(pid, signal.SIGKILL)
        self.running.clear()
        if self.is_confined:
            self.kill_left_behind()

    def answer(self, op: bytes, number: int, value: int) -> None:
        try:
            self.control.sendall(ANSWER.pack(op, number, value))
        except OSError:
            self.kill_all()
            os._exit(1)


def kill_group(pid: int, number: int) -> None:
    """The group, or the leader by itself: in its first moments it has no group of its own yet.

    Never both: a second SIGTERM would end the process while it still writes where it was.
    """
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, number)
            return


def drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        os.read(descriptor, 4096)


# ── the child: one command ──────────────────────────────────────────────────────────────────────


def become_child(descriptors: list[int]) -> int:
    """A session of its own, output in the pipes, default signals; the socket of the command."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        set_handler(number, signal.SIG_DFL)
    set_handler(signal.SIGINT, signal.default_int_handler)
    faulthandler.register(signal.SIGTERM, file=2, all_threads=True, chain=True)  # a timeout shows where the code was
    channel, out, err = descriptors
    for source, target in ((out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
    os.set_inheritable(channel, False)  # a program the user starts must not keep the answer open
    return channel


def set_streams() -> None:
    """Fresh stream objects, flushed at each line: what was printed before a kill is not lost."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)


def run_command(channel: int) -> NoReturn:
    """Read the request, run it, send the answer, end the process. Never returns."""
    status, process = 1, os.getpid()
    try:
        request = json.loads(receive(channel))
        answer, status = execute(request)
        finish_threads()
        if os.getpid() == process:  # not a child that the code forked and that ran on to the end
            send(channel, answer)
        os.close(channel)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader is gone
                stream.flush()
        os._exit(status)


def send(channel: int, answer: dict[str, Any]) -> None:
    data = memoryview(json.dumps(answer, separators=(",", ":"), ensure_ascii=True).encode())
    while data:
        data = data[os.write(channel, data) :]


def receive(channel: int) -> bytes:
    (length,) = LENGTH.unpack(receive_exactly(channel, LENGTH.size))
    return receive_exactly(channel, length)


def receive_exactly(channel: int, size: int) -> bytes:
    """From the descriptor itself: what a socket object touches would be copied for each child."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(channel, min(size - len(data), 1 << 20))
        if not chunk:
            raise EOFError("the worker closed the socket of the command")
        data += chunk
    return bytes(data)


def finish_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(1.0)
            if thread.is_alive():  # for whoever wonders at a timeout
                sys.stderr.write(f"[the code has ended, its thread {thread.name!r} has not]\n")
                thread.join()
    atexit._run_exitfuncs()


def execute(request: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """(answer, exit status) of the user's code. The answer has `result`, or `error`, or `leaves_none`.

    `leaves_none`: whether its `result` is None.
    """
    try:
        prepare_process(request)
        scope = make_scope(request)
        given = CODE["as_given"](request)
        try:
            found, value = run_code(request["code"], scope, request, given)
        except SystemExit as stop:
            answer, status = exited(stop)
            if status:
                return answer, status
            found, value = CODE["result_of"](request["code"], scope, given)
        return ({"result": VALUES["plain"](value)} if found else {"leaves_none": "result" in scope}), 0
    except SystemExit as stop:
        return exited(stop)
    except BaseException as error:
        return failed(error), 1


def prepare_process(request: dict[str, Any]) -> None:
    os.chdir(request["cwd"])
    for name, value in request["env"].items():
        os.environ[name] = value
    files = {name: CONFINEMENT["memory_file"](text) for name, text in request["secret_files"].items()}
    os.environ.update({name: f"/proc/self/fd/{descriptor}" for name, descriptor in files.items()})
    request["auth_fds"] = tuple(files.values())
    python_path = request["env"].get("PYTHONPATH", "")
    sys.path[:0] = [request["cwd"], *request.get("sys_path", ()), *filter(None, python_path.split(os.pathsep))]
    sys.argv = [FILE_NAME]
    if request.get("memory_mb"):
        CONFINEMENT["limit_memory"](request["memory_mb"] << 20)


def make_scope(request: dict[str, Any]) -> dict[str, Any]:
    """The globals of the user's code: a fresh `__main__`."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    scope = module.__dict__
    scope["__builtins__"] = builtins
    given, variables = request["input"], request["variables"]
    scope.update(json=json, os=os, uuid=uuid, datetime=datetime, **VALUES["LEGACY"])
    scope.update(execution_id=request["execution_id"], step=request["step"], auth=request.get("auth", {}))
    scope.update(auth_fds=request["auth_fds"])
    scope.update(args=given, input_data=given, variables=variables)
    scope["context"] = {**variables, "input": given, "execution_id": request["execution_id"], "step": request["step"]}
    scope.update({name: value for name, value in given.items() if name.isidentifier() and not name.startswith("__")})
    for alias, (name, *attribute) in request["libs"].items():
        scope[alias] = imported(name, *attribute)
    return scope


def imported(name: str, attribute: str = "") -> Any:
    module = importlib.import_module(name)
    if not attribute:
        return module
    return getattr(module, attribute, None) or importlib.import_module(f"{name}.{attribute}")


def run_code(source: str, scope: dict[str, Any], request: dict[str, Any], given: tuple[Any, Any]) -> tuple[bool, Any]:
    """(whether there is a value, the value): a top-level return, else `result`, else what `main()` returns.

    With `main_first` (the Python plane) `main()` comes before `result`, unless the text calls it by itself.
    """
    linecache.cache[FILE_NAME] = (len(source), None, source.splitlines(True), FILE_NAME)
    calls = CODE["calls_of_main"](source)
    if "guard" in calls:
        scope["__name__"] = "noetl_step"  # the guard is passed over, else main() would run twice
    code, returns = CODE["compile_source"](source)
    exec(code, scope)
    if returns:
        value = scope["__noetl_body__"]()
        if value is not None:
            return True, value
    main = scope.get("main")
    is_first = request["main_first"] and callable(main) and "top" not in calls
    value = call_main(main, scope, request) if is_first else None
    if value is not None:
        return True, value
    found, value = CODE["result_of"](source, scope, given)
    if found or is_first:
        return True, value if found else None
    if callable(main):
        return True, call_main(main, scope, request)
    return False, None


def call_main(main: Any, scope: dict[str, Any], request: dict[str, Any]) -> Any:
    """`main(...)` with parameters by name: from the input, then from what is injected, then from the variables."""
    given = request["input"]
    known = {**request["variables"], **{name: scope[name] for name in INJECTED}, **given}
    positional: list[Any] = []
    named: dict[str, Any] = {}
    parameters = inspect.signature(main).parameters.values()
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name not in known:
            if parameter.default is parameter.empty:
                raise TypeError(f"main() needs {parameter.name!r}: neither the input nor the variables have it")
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(known[parameter.name])
        else:
            named[parameter.name] = known[parameter.name]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        taken = {parameter.name for parameter in parameters}
        named.update({name: value for name, value in given.items() if name not in taken})
    value = main(*positional, **named)
    return asyncio.run(as_coroutine(value)) if inspect.isawaitable(value) else value


INJECTED = ("args", "input_data", "variables", "context", "execution_id", "step")


async def as_coroutine(awaitable: Any) -> Any:
    return await awaitable


# ── outcomes ────────────────────────────────────────────────────────────────────────────────────


def exited(stop: SystemExit) -> tuple[dict[str, Any], int]:
    """sys.exit(): no code or 0 is a success without a value, a text goes to stderr with code 1."""
    if stop.code is None or stop.code == 0:
        return {}, 0
    if not isinstance(stop.code, int):
        sys.stderr.write(f"{stop.code}\n")
        return {"error": {"type": "SystemExit", "message": f"SystemExit: {stop.code}"}}, 1
    code = stop.code & 0xFF
    return {"error": {"type": "SystemExit", "message": f"Python code exited with code {code}"}}, code


def failed(error: BaseException) -> dict[str, Any]:
    """Type and message for the worker; the traceback, from the user's first line on, to stderr."""
    report = traceback.TracebackException(type(error), error, users_part(error.__traceback__))
    sys.stderr.write("".join(report.format()))
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # its __str__ is the user's code too
        text = "(its text cannot be had)"
    return {"error": {"type": name, "message": f"{name}: {text}" if text else name}}


def users_part(frames: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without this file's frames above the user's; none of them when it never got there."""
    current = frames
    while current is not None and current.tb_frame.f_code.co_filename != FILE_NAME:
        current = current.tb_next
    return current


def main() -> None:
    """`serve FD CONFINEMENT`: the template. `once FD CONFINEMENT`: one command, where there is no fork."""
    mode, descriptor = sys.argv[1], int(sys.argv[2])
    confinement = CONFINEMENT["Confinement"].of_text(sys.argv[3])
    if confinement.is_on and confinement.processes:
        runpy.run_path(os.path.join(PROCESS, "command_group.py"))["join"](confinement.processes)  # noqa: PTH118
    CONFINEMENT["enter"](confinement)
    os.environ.clear()  # a command has its own
    if mode == "once":
        os.set_inheritable(descriptor, False)
        set_streams()
        run_command(descriptor)
    is_supervisor, descriptors = False, [descriptor]
    while len(descriptors) == 1:
        control = socket.socket(fileno=descriptors[0])
        descriptors = Template(control, is_confined=confinement.is_on, is_supervisor=is_supervisor).serve()
        if not is_supervisor and len(descriptors) == 1:
            is_supervisor = True
            os.setsid()
            CONFINEMENT["begin_supervisor"]()
    run_command(become_child(descriptors))


if __name__ == "__main__":
    main()
