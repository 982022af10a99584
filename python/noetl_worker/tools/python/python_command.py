"""The work of a command's process: its Python code, from the request to the answer.

The template process (`python_template.py`) reads this file by path and then forks a child for each command. The file
uses only the standard library, since user code must not find the worker's own modules loaded. The kernel copies each
memory page to which a child writes. These copies are most of the cost of a warm command (see `rehearse`).
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
import site
import socket
import sys
import threading
import time
import traceback
import types
import uuid
from typing import Any, NoReturn

TEMPLATE = vars(sys.modules["__main__"])
"""Global variables of the program `python_template.py`, by name. The program executes this file, and this file uses the
program's functions."""
EXCHANGE, CONFINEMENT = TEMPLATE["EXCHANGE"], TEMPLATE["CONFINEMENT"]
VALUES, CODE = (TEMPLATE["read"](TEMPLATE["HERE"], module) for module in ("python_values", "python_code"))
FILE_NAME = CODE["FILE_NAME"]
OWN = os.path.dirname(os.path.dirname(TEMPLATE["HERE"])) + os.sep  # noqa: PTH120 - as in `python_template.py`
"""Directory of the worker's source files. Tracebacks of user code leave out the lines from these files."""
PLAIN = TEMPLATE["read"](TEMPLATE["TEXT"], "plain_values")
PLAIN["MAX_DEPTH"] = 201
"""Maximum nesting depth of a result. It leaves room for the further levels of the event that carries the result."""
plain, compile_source, result_of = PLAIN["plain"], CODE["compile_source"], CODE["result_of"]
calls_of_main, as_given = CODE["calls_of_main"], CODE["as_given"]
begin, send, receive = EXCHANGE["begin"], EXCHANGE["send"], EXCHANGE["receive"]
SIGTERM, SIGINT, BY_DEFAULT = int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIG_DFL)
ENDING = (SIGTERM, int(signal.SIGHUP), int(signal.SIGCHLD))
dup2, close, set_inheritable, getpid = os.dup2, os.close, os.set_inheritable, os.getpid
INTERRUPT, register_traceback = signal.default_int_handler, faulthandler.register
set_handler = importlib.import_module("_signal").signal
"""The C function behind `signal.signal`. It is faster, because it does not convert numbers to enums."""
ROUNDS = 12
"""Number of times that `rehearse` runs the code which starts a command, before the first real command. Python makes
code faster after about eight runs."""
REHEARSED = ("result = {'n': 1}", "return 'n'", "def main(n=None):\n    return n")
INHERITED = dict(os.environ)
"""Environment of the template process (`base_environment` in `process.py`). A child changes only the variables that
differ in its command."""
NOT_GIVEN: dict[str, Any] = {
    **{name: {} for name in ("input", "variables", "libs", "auth", "secret_files")},
    "sys_path": [],
    "executable": "",
    "main_first": False,
    "reads_input_again": False,
    "memory_mb": None,
}
"""Defaults for fields of the request with which the worker asks a Python process to run code."""
LOG_HANDLERS: list[Any] = vars(logging)["_handlerList"]
AT_EXIT = atexit._ncallbacks(), list(LOG_HANDLERS)
"""Number of `atexit` callbacks, and the log handlers, in the template process. If user code has changed neither, a
child need not run exit functions."""


def rehearse() -> None:
    """Do the work of a command's child in the template process, before the first fork. The interpreter then has
    specialized this file's code, so a child writes to half as many memory pages. The rehearsal uses no command's data,
    and restores the process state at the end."""
    for builtin in (site.setquit, site.setcopyright, site.sethelper):  # missing without module `site`
        builtin()
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
    """Start a session, connect the output pipes, and restore default signals. Return the socket of the command."""
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
    """Create new stdout and stderr objects that are flushed at each line, so that output before a kill is not lost."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)


def run_command(channel: int, is_begun: bool = False) -> NoReturn:
    """Read the request, run the code, send the answer, and end the process.

    `is_begun`: the template process has already reported the beginning of the command.
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
    """Stop writing a traceback at SIGTERM, in a process that user code has forked. A `multiprocessing` pool ends its
    processes by SIGTERM, which is not a failure."""
    if signal.getsignal(SIGTERM) == signal.SIG_DFL:  # the code set no handler
        faulthandler.unregister(SIGTERM)


def carry_out(channel: int, is_begun: bool = False) -> int:
    """Read the request, run the command and send the answer. Return the exit status."""
    process = getpid()
    if not is_begun:
        begin(channel, process)
    request = {**NOT_GIVEN, **receive(channel)}
    answer, status = execute(request)
    finish_threads()
    if getpid() == process:  # not in a child that the code forked and that ran on to this point
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
            if thread.is_alive():  # explains a timeout
                sys.stderr.write(f"[the code has ended, its thread {thread.name!r} has not]\n")
                thread.join()
    if (atexit._ncallbacks(), LOG_HANDLERS) != AT_EXIT:
        atexit._run_exitfuncs()


def end_executors() -> None:
    """Shut executors down before waiting for threads, as the interpreter does at its exit. Otherwise the threads of an
    executor would wait for work for ever."""
    for end in reversed(vars(threading)["_threading_atexits"]):
        try:
            end()
        except BaseException:
            traceback.print_exc()


def execute(request: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Run the user's code, and return the answer and the exit status. The answer has `result`, `error` or
    `leaves_none`.

    `leaves_none` is True if the code has set `result` to None, and False if the code has no result.
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
    if request["executable"]:
        enter_environment(request["executable"])
    python_path = wanted.get("PYTHONPATH", "")
    sys.path[:0] = [request["cwd"], *request["sys_path"], *filter(None, python_path.split(os.pathsep))]
    sys.argv = [FILE_NAME]
    if request["memory_mb"]:
        CONFINEMENT["limit_memory"](request["memory_mb"] << 20)


def enter_environment(executable: str) -> None:
    """Make this process look as if `executable` had been started, such as the interpreter of a virtual environment.

    Start-up code of the environment (`.pth` files, `sitecustomize`) runs here, in the command's process, and never in
    the template process.
    """
    library = os.path.dirname(os.__file__)  # noqa: PTH120 - as in `python_template.py`
    own = (library, os.path.join(library, "lib-dynload"))  # noqa: PTH118
    sys.path[:] = [path for path in sys.path if path in own or path.endswith(".zip")]
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder.__module__.startswith("_frozen_importlib")]
    sys.executable, prefix = executable, os.path.dirname(os.path.dirname(executable))  # noqa: PTH120
    sys.prefix, sys.exec_prefix = base = sys.base_prefix, sys.base_exec_prefix
    site.PREFIXES[:] = base
    if os.path.exists(prefix + "/pyvenv.cfg"):  # noqa: PTH110
        sys.prefix = sys.exec_prefix = prefix
        site.PREFIXES[:] = (prefix, *base) if sees_system_packages(prefix) else (prefix,)
    for name in ("sysconfig", "sitecustomize"):  # sysconfig has read the old prefix
        sys.modules.pop(name, None)
    for packages in site.getsitepackages():
        site.addsitedir(packages)
    site.execsitecustomize()


def sees_system_packages(prefix: str) -> bool:
    """Return True if code in this virtual environment can also import the packages of the base interpreter. The
    environment's `pyvenv.cfg` says so (`include-system-site-packages`)."""
    with open(prefix + "/pyvenv.cfg", encoding="utf-8") as file:  # noqa: PTH123
        lines = [line.lower().partition("=") for line in file]
    given = {name.strip(): value.strip() for name, _, value in lines}
    return given.get("include-system-site-packages", "true") == "true"


def make_scope(request: dict[str, Any]) -> dict[str, Any]:
    """Return the global variables for the user's code, in a new module `__main__`."""
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
    """Run the user's code, and return (True if there is a value, the value). The value comes from a top-level `return`,
    else from `result`, else from `main()`.

    With `main_first` (the Python plane) `main()` comes before `result`, unless the code itself calls `main`.
    """
    linecache.cache[FILE_NAME] = (len(source), None, source.splitlines(True), FILE_NAME)
    calls = calls_of_main(source)
    if "guard" in calls:
        scope["__name__"] = "noetl_step"  # skips the guard; otherwise main() would run twice
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
    """Call `main` with a value for each parameter, found by the parameter's name. The input takes precedence, then the
    names in INJECTED, then the variables."""
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
    """Return the answer and the exit status for `sys.exit()`. No code, or 0, is a success without a value. A text is
    written to stderr and gives status 1."""
    if stop.code is None or stop.code == 0:
        return {}, 0
    if not isinstance(stop.code, int):
        sys.stderr.write(f"{stop.code}\n")
        return {"error": {"type": "SystemExit", "message": f"SystemExit: {stop.code}"}}, 1
    code = stop.code & 0xFF
    return {"error": {"type": "SystemExit", "message": f"Python code exited with code {code}"}}, code


def failed(error: BaseException) -> dict[str, Any]:
    """Return the answer for an exception: its type and message. The traceback is written to stderr, without the
    worker's own lines."""
    report = traceback.TracebackException(type(error), error, users_part(error.__traceback__))
    leave_out_own(report)
    sys.stderr.write("".join(report.format()))
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # the __str__ of an exception may be user code
        text = "(the text of this exception cannot be read)"
    return {"error": {"type": name, "message": f"{name}: {text}" if text else name}}


def leave_out_own(report: traceback.TracebackException) -> None:
    """Remove the worker's lines from a traceback, and from its causes."""
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(OWN)]
    for other in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        if other is not None:
            leave_out_own(other)


def users_part(frames: types.TracebackType | None) -> types.TracebackType | None:
    """Return the traceback from the first frame of user code on, or None if no frame is user code."""
    current = frames
    while current is not None and current.tb_frame.f_code.co_filename != FILE_NAME:
        current = current.tb_next
    return current
