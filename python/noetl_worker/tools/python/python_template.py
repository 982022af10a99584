"""The template process of the `python` tool, and the child it forks for each command.

It is run by path with `-I`, so it imports only the standard library: user code must not find the worker's own
modules loaded, and a fork is faster the smaller this process is. An interpreter that is not the worker's own is run
with `-S` too: nothing of a virtual environment runs before a command has entered it. The worker's side is
`python_runner.py`; the protocol:

* control socket, from the worker to this process: messages of 10 bytes (op, command number, signal).
  `F`, with three descriptors (socket of the command, stdout, stderr): fork a child for Python code.
  `E`, with the same three descriptors: start the program that the command's request names (program, argv, env, cwd).
  The request's `channel` is the descriptor number under which the program finds the socket.
  `K`: send the signal to the command's process group. `A`: answer, as a sign of life.
  `S`, with a further control socket: fork a supervisor (see below), which serves that control socket.
* control socket, from this process to the worker: messages of 17 bytes (op, command number, value).
  `X`: the command has ended. The value is its exit status as in `subprocess` (negative for a signal). 255 reports a
  fork that failed, and NOT_STARTED a program that could not be started.
  `A`: the sign of life. `S`: the supervisor exists.
* socket of the command: its requests and answers (`python_exchange.py`). A command first reports on this socket that
  it begins, but does not wait until the worker has read this report.

When the worker goes away, the control socket ends: everything is killed and this process ends. With a confinement
(`confinement.py`) each command has a supervisor: a fork of the template that runs one command at a time. Whatever
the command starts stays below its supervisor, in whichever session, and has ended before the `X`; the template ends
processes that a killed supervisor leaves. The command cannot signal its supervisor, because the supervisor is
outside the command's Landlock domain.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

REQUEST = struct.Struct("!cQB")
ANSWER = struct.Struct("!cQq")
NOT_STARTED = 256
"""Value in a message `X` (end of a command) to the worker, in place of an exit status, if the program could not be
started. No program can have this exit status. The reason is sent on the command's socket."""
ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(3 * 4)
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - no pathlib in every child
PROCESS = os.path.join(os.path.dirname(HERE), "process")  # noqa: PTH118, PTH120
TEXT = os.path.join(os.path.dirname(os.path.dirname(HERE)), "text")  # noqa: PTH118, PTH120


def read(folder: str, name: str) -> dict[str, Any]:
    """Execute the file of a module and return the module's names, without an entry in `sys.modules`. User code must not
    find the module loaded. Python caches the compiled file."""
    module = sys.modules[name] = ModuleType(name)  # registered while it is read, because dataclasses look it up
    module.__file__ = os.path.join(folder, f"{name}.py")  # noqa: PTH118
    try:
        exec(SourceFileLoader(name, module.__file__).get_code(name) or "", vars(module))
    finally:
        del sys.modules[name]
    return vars(module)


EXCHANGE = read(HERE, "python_exchange")
PROGRAM = read(PROCESS, "program")
CONFINEMENT = read(PROCESS, "confinement")
KEPT: list[Any] = []
"""Objects that a fork must not free. Freeing an object would write to its memory page, and the kernel would copy the
page."""
AT_FORK: list[dict[str, Any]] = []


class Template:
    """The main loop of a process from which commands are forked: the template process, or a supervisor. The process has
    one thread and no locks, so forking is safe."""

    def __init__(self, control: socket.socket, score: Any, confinement: Any) -> None:
        self.control = control
        self.score = score
        """Object that gives forked supervisors the highest OOM score: the kernel kills them first if memory runs out.
        None if this process forks no supervisors."""
        self.is_confined = confinement.is_on
        self.is_supervisor = confinement.is_on and score is None
        self.running: dict[int, int] = {}
        """Child processes that run now: process id -> number by which the worker names the child in its messages."""
        control.set_inheritable(False)
        self.wake, self.wake_write = os.pipe()
        self.own = [self.wake, self.wake_write, control.fileno()]
        """Numbers of the file descriptors that only this process may use. A forked child closes them with `os.close`,
        because the Python objects that own the descriptors stay alive in the child (KEPT)."""
        if score is not None and score.file >= 0:
            self.own.append(score.file)
        self.domain = CONFINEMENT["Domain"](self.is_supervisor, tuple(confinement.closed))
        if self.domain.rules >= 0:
            self.own.append(self.domain.rules)
        os.set_blocking(self.wake, False)
        os.set_blocking(self.wake_write, False)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # the worker decides; not SIG_IGN, which programs would inherit

    def serve(self) -> list[int]:
        """Serve requests until the worker closes the control socket, then end the process. A forked child leaves this
        function: there it returns the file descriptors that the worker sent for the child."""
        control, poll = self.control.fileno(), select.poll()
        for descriptor in (control, self.wake):
            poll.register(descriptor, select.POLLIN)
        KEPT.extend((self, poll))
        gc.collect()
        gc.freeze()  # the collector must not write to pages that the children share
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == control:
                    child = self.handle_request()
                    if child is not None:
                        return child
                else:
                    drain(self.wake)
                    self.reap()

    def handle_request(self) -> list[int] | None:
        """Handle one request of the worker. If the request makes this process fork, this function returns twice. In the
        child it returns the file descriptors that the worker sent for the child; in this process it returns None."""
        try:
            data, ancillary, _, _ = self.control.recvmsg(REQUEST.size, ROOM_FOR_DESCRIPTORS)
        except ConnectionError:  # killed while answers of ours were unread
            data, ancillary = b"", []
        descriptors = list(memoryview(ancillary[0][2]).cast("i")) if ancillary else []
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
        """Fork a child, which the worker calls `number`. With three file descriptors (socket, stdout, stderr) the child
        runs a command. With one (a control socket) the child is a supervisor, which starts commands itself.

        In the child, return the descriptors; in this process, return None.
        """
        is_supervisor = self.score is not None and len(descriptors) == 1
        if is_supervisor:
            self.score.set_first()
        pid = self.fork() if descriptors else -1
        if pid == 0:
            return descriptors
        if is_supervisor:
            self.score.set_back()
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self.running[pid] = number
            if len(descriptors) == 1:
                self.answer(b"S", number, pid)
        else:
            self.answer(b"X", number, 255)
        return None

    def start_program(self, number: int, descriptors: list[int]) -> None:
        """Start a program by `posix_spawn`, because forking this process would cost more CPU."""
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        channel, out, err = descriptors
        try:
            EXCHANGE["begin"](channel, 0)  # 0: this process ends the command, not the worker
            request = EXCHANGE["receive"](channel)
            pid = self.domain.spawn(lambda: PROGRAM["spawn"](request, channel, out, err))
        except (EOFError, ConnectionError):  # cancelled by the worker
            self.answer(b"X", number, -signal.SIGKILL)
        except (OSError, ValueError) as error:
            EXCHANGE["send"](channel, {"error": str(error)})
            self.answer(b"X", number, NOT_STARTED)
        else:
            self.running[pid] = number
        for descriptor in descriptors:
            os.close(descriptor)

    def fork(self) -> int:
        """Fork like `os.fork`, but return -1 if no process can be started. The child enters its Landlock domain, and
        closes the parent's own descriptors (`own`)."""
        try:
            pid = os.fork()
        except OSError:
            return -1
        if pid == 0:
            signal.set_wakeup_fd(-1)
            self.domain.enter()
            for descriptor in self.own:
                os.close(descriptor)
        return pid

    def send_signal(self, number: int, value: int) -> None:
        for pid, command in self.running.items():
            if command == number:
                kill_group(pid, value)

    def reap(self) -> None:
        """Reap ended child processes, and report the exit status of commands. First kill the process group of the ended
        command: its process id cannot be reused before the reaping."""
        while ended := an_ended_child():
            number = self.running.pop(ended, None)
            if number is not None:
                kill_group(ended, signal.SIGKILL)
            _, status = os.waitpid(ended, 0)
            if self.is_confined and (number is not None or not self.is_supervisor):
                self.kill_left_behind()
            if number is not None:
                self.answer(b"X", number, os.waitstatus_to_exitcode(status))
            if self.is_supervisor and not self.running:  # and nothing is left below this supervisor
                return

    def kill_left_behind(self) -> None:
        """Kill the processes that a command has left: all child processes that are not commands. The children of a
        killed process become children of this process."""
        try:
            while not self.running:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    if not CONFINEMENT["kill_children"](()):
                        return  # the system does not list children: logged at the worker's start
                    os.waitpid(-1, 0)
        except ChildProcessError:
            return
        CONFINEMENT["kill_children"](self.running)

    def kill_all(self) -> None:
        for pid in self.running:
            kill_group(pid, signal.SIGKILL)
        self.running.clear()
        if self.is_confined:
            self.kill_left_behind()

    def answer(self, op: bytes, number: int, value: int) -> None:
        try:
            os.write(self.own[2], ANSWER.pack(op, number, value))
        except OSError:
            self.kill_all()
            os._exit(1)


def kill_group(pid: int, number: int) -> None:
    """Signal the process group of a command. If the command has no process group yet, signal its process.

    A call never signals both: a second SIGTERM would end the process while it still writes its traceback.
    """
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
        return


def an_ended_child() -> int:
    """Return the process id of an ended child, or 0 if no child has ended. The child is not reaped yet, so its process
    id cannot be reused."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return ended.si_pid if ended else 0


def drain(descriptor: int) -> None:
    try:  # noqa: SIM105 - contextlib would be more memory to copy
        os.read(descriptor, 4096)
    except BlockingIOError:
        pass


def command() -> dict[str, Any]:
    """Execute the file `python_command.py` and return its global names. `threading` and `logging`, which it imports,
    register fork hooks. Only a command's process needs these hooks, so they are collected in AT_FORK for later."""
    register = os.register_at_fork

    def registered(**hooks: Any) -> None:
        if {hook.__module__ for hook in hooks.values()} <= {"threading", "logging"}:
            AT_FORK.append(hooks)
        else:
            register(**hooks)

    os.register_at_fork = registered
    try:
        return read(HERE, "python_command")
    finally:
        os.register_at_fork = register


def main() -> None:
    """Run the kind of process that the command line selects.

    `serve FD CONFINEMENT`: a template process. Its commands run the Python code of playbooks. FD is its control socket,
    and CONFINEMENT the restrictions of its commands, as JSON.
    `serve FD CONFINEMENT MODULE SYS_PATH`: the same, but its commands call `run_command` of the worker's module MODULE.
    SYS_PATH is the value of `sys.path`, as JSON.
    `once FD LEVEL`: the process of one command, which a template process has started and confined. FD is the command's
    socket, and LEVEL the isolation level.
    """
    mode, descriptors = sys.argv[1], [int(sys.argv[2])]
    if mode == "once":
        if sys.argv[3] != "off":
            CONFINEMENT["hide_memory"]()  # the one property that a new program does not inherit
        of_command = command()
        of_command["set_streams"]()
        of_command["run_command"](of_command["take"]([*descriptors, os.dup(1), os.dup(2)]), is_begun=True)
    confinement = CONFINEMENT["Confinement"].of_text(sys.argv[3])
    if confinement.is_on and confinement.processes:
        read(PROCESS, "command_group")["join"](confinement.processes)
    score = CONFINEMENT["OomScore"]() if confinement.is_on else None
    CONFINEMENT["enter"](confinement)
    CONFINEMENT["go_on_at_the_parents_end"]()
    of_command = command()
    of_command["set_streams"]()  # once here, so that no child has to do it
    if len(sys.argv) > 4:
        sys.path[:] = json.loads(sys.argv[5])
        serving = importlib.import_module(sys.argv[4])
        serving.prepare()
        run_command = serving.run_command
    else:
        of_command["rehearse"]()
        run_command = of_command["run_command"]
    while len(descriptors) == 1:
        control = socket.socket(fileno=descriptors[0])
        descriptors = Template(control, score, confinement).serve()
        if score is not None and len(descriptors) == 1:
            score = None
            os.setsid()
            CONFINEMENT["begin_supervisor"]()
    for hooks in AT_FORK:
        os.register_at_fork(**hooks)
    run_command(of_command["become_child"](descriptors))


if __name__ == "__main__":
    main()
