"""What runs in the process of a command: its Python code, from the request to the answer.

Read by path into the template process (`python_template.py`), which forks it: the standard library only, since user
code must not find the worker's own modules loaded. Each page of memory that a child writes to is copied for it, and
those copies are most of what a warm command costs: see `rehearse`.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import builtins
import datetime
import faulthandler
import importlib
import inspect
import json
import linecache
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
import types
import uuid
from typing import Any, NoReturn

TEMPLATE = vars(sys.modules["__main__"])
"""`python_template.py`, which reads this file."""
EXCHANGE, CONFINEMENT = TEMPLATE["EXCHANGE"], TEMPLATE["CONFINEMENT"]
VALUES, CODE = (TEMPLATE["read"](TEMPLATE["HERE"], module) for module in ("python_values", "python_code"))
FILE_NAME = CODE["FILE_NAME"]
OWN = os.path.dirname(os.path.dirname(TEMPLATE["HERE"])) + os.sep  # noqa: PTH120 - as in `python_template.py`
"""Where the worker's own files are."""
PLAIN = TEMPLATE["read"](TEMPLATE["TEXT"], "plain_values")
PLAIN["MAX_DEPTH"] = 201
"""A result travels in an event, which has levels around it."""
plain, compile_source, result_of = PLAIN["plain"], CODE["compile_source"], CODE["result_of"]
calls_of_main, as_given = CODE["calls_of_main"], CODE["as_given"]
begin, send, receive = EXCHANGE["begin"], EXCHANGE["send"], EXCHANGE["receive"]
SIGTERM, SIGINT, BY_DEFAULT = int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIG_DFL)
ENDING = (SIGTERM, int(signal.SIGHUP), int(signal.SIGCHLD))
dup2, close, set_inheritable, getpid = os.dup2, os.close, os.set_inheritable, os.getpid
INTERRUPT, register_traceback = signal.default_int_handler, faulthandler.register
set_handler = importlib.import_module("_signal").signal
"""Without the conversions to enums of `signal.signal`."""
ROUNDS = 12
"""The interpreter adapts code that has run some eight times."""
REHEARSED = ("result = {'n': 1}", "return 'n'", "def main(n=None):\n    return n")
INHERITED = dict(os.environ)
"""The template's variables: most of those that a command is to have, and nothing else (`interpreter.py`)."""
NOT_GIVEN: dict[str, Any] = {
    **{name: {} for name in ("input", "variables", "libs", "auth", "secret_files")},
    "sys_path": [],
    "main_first": False,
    "reads_input_again": False,
    "memory_mb": None,
}
"""What a request need not say, as no code, input or limit of its own has it."""
LOG_HANDLERS: list[Any] = vars(logging)["_handlerList"]
AT_EXIT = atexit._ncallbacks(), list(LOG_HANDLERS)
"""What the standard library has to do at an exit: nothing, while there is no more than this."""


def rehearse() -> None:
    """What each child does, done before the first: the interpreter adapts code to what it meets, and a child that finds
    it adapted touches half of the pages. Nothing of a command is in it, and nothing of it is left for one."""
    paths, arguments, module = list(sys.path), sys.argv, sys.modules["__main__"]
    nothing = {"execution_id": "", "step": "", "env": {**os.environ, "TMPDIR": "/"}, "cwd": "/"}
    for text in REHEARSED * ROUNDS:
        mine, channel = socket.socketpair()
        data = json.dumps({**nothing, "code": text}).encode()
        mine.sendall(EXCHANGE["LENGTH"].pack(len(data)) + data)
        carry_out(take([channel.detach(), os.dup(1), os.dup(2)]))
        mine.close()
        flush()
        faulthandler.unregister(SIGTERM)
    os.environ.clear()
    os.environ.update(INHERITED)
    linecache.cache.clear()
    sys.path[:], sys.argv, sys.modules["__main__"] = paths, arguments, module


def become_child(descriptors: list[int]) -> int:
    """A session of its own, output in the pipes, default signals; the socket of the command."""
    os.setsid()
    return take(descriptors)


def take(descriptors: list[int]) -> int:
    for number in ENDING:
        set_handler(number, BY_DEFAULT)
    set_handler(SIGINT, INTERRUPT)
    register_traceback(SIGTERM, 2, True, True)  # all threads, and then it ends: a timeout shows where the code was
    channel, out, err = descriptors
    dup2(out, 1)
    dup2(err, 2)
    close(out)
    close(err)
    set_inheritable(channel, False)  # a program the user starts must not keep the answer open
    return channel


def set_streams() -> None:
    """Fresh stream objects, flushed at each line: what was printed before a kill is not lost."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)


def run_command(channel: int, is_begun: bool = False) -> NoReturn:
    """Read the request, run it, send the answer, end the process. Never returns.

    `is_begun`: who started this program has said so.
    """
    status = 1
    os.register_at_fork(after_in_child=end_without_traceback)
    try:
        status = carry_out(channel, is_begun)
    except BaseException:
        traceback.print_exc()
    finally:
        flush()
        os._exit(status)


def end_without_traceback() -> None:
    """In a process that the code forks: it may end that by SIGTERM, as a pool of `multiprocessing` does."""
    if signal.getsignal(SIGTERM) == signal.SIG_DFL:  # no handler of its own
        faulthandler.unregister(SIGTERM)


def carry_out(channel: int, is_begun: bool = False) -> int:
    """The exit status, when the answer has been sent."""
    process = getpid()
    if not is_begun:
        begin(channel, process)
    request = {**NOT_GIVEN, **receive(channel)}
    answer, status = execute(request)
    finish_threads()
    if getpid() == process:  # not a child that the code forked and that ran on to the end
        send(channel, answer)
    close(channel)
    return status


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib would be more memory to copy
            stream.flush()
        except (OSError, ValueError):  # the reader is gone
            pass


def finish_threads() -> None:
    if _thread._count():
        end_executors()
    for thread in threading.enumerate() if _thread._count() else ():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(1.0)
            if thread.is_alive():  # for whoever wonders at a timeout
                sys.stderr.write(f"[the code has ended, its thread {thread.name!r} has not]\n")
                thread.join()
    if (atexit._ncallbacks(), LOG_HANDLERS) != AT_EXIT:
        atexit._run_exitfuncs()


def end_executors() -> None:
    """As the interpreter does it before it waits for threads: those of an executor wait for work until it says so."""
    for end in reversed(vars(threading)["_threading_atexits"]):
        try:
            end()
        except BaseException:
            traceback.print_exc()


def execute(request: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """(answer, exit status) of the user's code. The answer has `result`, or `error`, or `leaves_none`.

    `leaves_none`: whether its `result` is None.
    """
    try:
        prepare_process(request)
        if request["reads_input_again"]:
            request["input"] = {name: VALUES["read_again"](value) for name, value in request["input"].items()}
        scope = make_scope(request)
        given = as_given(request)
        try:
            found, value = run_code(request["code"], scope, request, given)
        except SystemExit as stop:
            answer, status = exited(stop)
            if status:
                return answer, status
            found, value = result_of(request["code"], scope, given)
        return ({"result": plain(value)} if found else {"leaves_none": "result" in scope}), 0
    except SystemExit as stop:
        return exited(stop)
    except BaseException as error:
        return failed(error), 1


def prepare_process(request: dict[str, Any]) -> None:
    os.chdir(request["cwd"])
    wanted = request["env"]
    for name, value in wanted.items():
        if INHERITED.get(name) != value:
            os.environ[name] = value
    for name in INHERITED:
        if name not in wanted:
            del os.environ[name]
    if INHERITED.get("TZ") != wanted.get("TZ"):
        time.tzset()
    files = []
    for name, text in request["secret_files"].items():
        files.append(CONFINEMENT["memory_file"](text))
        os.environ[name] = f"/proc/self/fd/{files[-1]}"
    request["auth_fds"] = tuple(files)
    python_path = wanted.get("PYTHONPATH", "")
    sys.path[:0] = [request["cwd"], *request["sys_path"], *filter(None, python_path.split(os.pathsep))]
    sys.argv = [FILE_NAME]
    if request["memory_mb"]:
        CONFINEMENT["limit_memory"](request["memory_mb"] << 20)


def make_scope(request: dict[str, Any]) -> dict[str, Any]:
    """The globals of the user's code: a fresh `__main__`."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    scope = module.__dict__
    scope["__builtins__"] = builtins
    given, variables = request["input"], request["variables"]
    scope.update(json=json, os=os, uuid=uuid, datetime=datetime, **VALUES["LEGACY"], make_serializable=plain)
    scope.update(execution_id=request["execution_id"], step=request["step"], auth=request["auth"])
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
    calls = calls_of_main(source)
    if "guard" in calls:
        scope["__name__"] = "noetl_step"  # the guard is passed over, else main() would run twice
    code, returns = compile_source(source)
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
    found, value = result_of(source, scope, given)
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
    leave_out_own(report)
    sys.stderr.write("".join(report.format()))
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # its __str__ is the user's code too
        text = "(its text cannot be had)"
    return {"error": {"type": name, "message": f"{name}: {text}" if text else name}}


def leave_out_own(report: traceback.TracebackException) -> None:
    """Take the worker's lines out of it, and out of what it came of."""
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(OWN)]
    for other in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        if other is not None:
            leave_out_own(other)


def users_part(frames: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without this file's frames above the user's; none of them when it never got there."""
    current = frames
    while current is not None and current.tb_frame.f_code.co_filename != FILE_NAME:
        current = current.tb_next
    return current
