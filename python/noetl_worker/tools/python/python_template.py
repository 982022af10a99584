"""The template process of the `python` tool, and the child it forks for each command.

Run by path with `-I`, so it imports the standard library only: user code must not find the worker's own modules
loaded, and a fork is as fast as this process is small. The worker's side is `python_runner.py`; the protocol:

* control socket, worker -> here: 10 bytes (op, command number, signal). `F` comes with three descriptors
  (socket of the command, stdout, stderr): fork, for Python code. `E`: the same, for a program that the request names
  (program, argv, env, cwd; `channel`: its number for the socket). `K`: send the signal to the command's process group.
  `A`: answer. `S` comes with a control socket: fork a supervisor, which serves that one.
* control socket, here -> worker: 17 bytes (op, command number, value). `X` exit status as `subprocess` has it (negative
  for a signal); a fork that fails is `X` with 255, a program that cannot be started `X` with NOT_STARTED. `A`: as asked
  for. `S`: the supervisor is there.
* socket of the command: `python_exchange.py`. That a command has begun is said there: the worker does not wake for it.

When the worker goes away, the control socket ends: everything is killed and this process ends. With a confinement
(`confinement.py`) each command has a supervisor: a fork of the template that runs one command at a time. Whatever the
command starts stays below it, whichever session it goes to, and has ended before the `X`; what a killed one leaves, the
template ends. The command cannot signal it: its domain begins below the supervisor.
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
"""No exit status, so that no program can say it; the reason is in the socket of the command."""
ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(3 * 4)
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - no pathlib in every child
PROCESS = os.path.join(os.path.dirname(HERE), "process")  # noqa: PTH118, PTH120
TEXT = os.path.join(os.path.dirname(os.path.dirname(HERE)), "text")  # noqa: PTH118, PTH120


def read(folder: str, name: str) -> dict[str, Any]:
    """The names of a module that no command is to find loaded; compiled when it is read for the first time."""
    module = sys.modules[name] = ModuleType(name)  # there while it is read: dataclasses look into it
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
"""What a fork has of the process it was forked from, and lets lie: to free it would touch the memory it is in."""
AT_FORK: list[dict[str, Any]] = []


class Template:
    """One thread, no locks: a fork of it is safe."""

    def __init__(self, control: socket.socket, score: Any, *, is_confined: bool) -> None:
        self.control = control
        self.score = score
        """`OomScore`; None: this is no template that forks supervisors."""
        self.is_confined = is_confined
        self.is_supervisor = is_confined and score is None
        self.running: dict[int, int] = {}
        """Process id -> number of the command."""
        control.set_inheritable(False)
        self.wake, self.wake_write = os.pipe()
        self.own = [self.wake, self.wake_write, control.fileno()]
        """Closed by number in a fork, where their objects are kept."""
        if score is not None and score.file >= 0:
            self.own.append(score.file)
        self.domain = CONFINEMENT["Domain"](self.is_supervisor)
        if self.domain.rules >= 0:
            self.own.append(self.domain.rules)
        os.set_blocking(self.wake, False)
        os.set_blocking(self.wake_write, False)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # the worker decides; not SIG_IGN, which programs would inherit

    def serve(self) -> list[int]:
        """Until the worker closes the control socket. Returns in a forked child, with its descriptors."""
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
        """Handle one request; in a forked child, the descriptors it is to work with."""
        try:
            data, ancillary, _, _ = self.control.recvmsg(REQUEST.size, ROOM_FOR_DESCRIPTORS)
        except ConnectionError:  # killed with answers of ours unread
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
        """Of a command (three descriptors) or of a supervisor (one)."""
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
        """Without a fork of this process, which costs more than the program's start."""
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        channel, out, err = descriptors
        try:
            EXCHANGE["begin"](channel, 0)  # what is to be killed is ours to kill
            request = EXCHANGE["receive"](channel)
            pid = self.domain.spawn(lambda: PROGRAM["spawn"](request, channel, out, err))
        except (EOFError, ConnectionError):  # called off
            self.answer(b"X", number, -signal.SIGKILL)
        except (OSError, ValueError) as error:
            EXCHANGE["send"](channel, {"error": str(error)})
            self.answer(b"X", number, NOT_STARTED)
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
            self.domain.enter()
            for descriptor in self.own:
                os.close(descriptor)
        return pid

    def send_signal(self, number: int, value: int) -> None:
        for pid, command in self.running.items():
            if command == number:
                kill_group(pid, value)

    def reap(self) -> None:
        """End what a command left behind, before its process id can belong to anybody else."""
        while ended := an_ended_child():
            number = self.running.pop(ended, None)
            if number is not None:
                kill_group(ended, signal.SIGKILL)
            _, status = os.waitpid(ended, 0)
            if self.is_confined and (number is not None or not self.is_supervisor):
                self.kill_left_behind()
            if number is not None:
                self.answer(b"X", number, os.waitstatus_to_exitcode(status))
            if self.is_supervisor and not self.running:  # and nothing is left below it
                return

    def kill_left_behind(self) -> None:
        """A child of ours that is no command is what one left; its own children become ours when it ends."""
        try:
            while not self.running:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    if not CONFINEMENT["kill_children"](()):
                        return  # the system does not say which there are: logged at the worker's start
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
    """The group, or the leader by itself: in its first moments it has no group of its own yet.

    Never both: a second SIGTERM would end the process while it still writes where it was.
    """
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
        return


def an_ended_child() -> int:
    """Its process id, which stays its own until it is reaped; 0: none has ended."""
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
    """`python_command.py`. What `threading` and `logging` mend after a fork is for commands that fork: the template has
    one thread, and none of their locks is held."""
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
    """`serve FD CONFINEMENT`: the template; with `MODULE SYS_PATH`, one of the worker's own modules runs the commands.
    `once FD LEVEL`: one command, which a template has started and confined."""
    mode, descriptors = sys.argv[1], [int(sys.argv[2])]
    if mode == "once":
        if sys.argv[3] != "off":
            CONFINEMENT["hide_memory"]()  # the one thing that a new program does not inherit
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
    of_command["set_streams"]()  # here, not in each child
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
        descriptors = Template(control, score, is_confined=confinement.is_on).serve()
        if score is not None and len(descriptors) == 1:
            score = None
            os.setsid()
            CONFINEMENT["begin_supervisor"]()
    for hooks in AT_FORK:
        os.register_at_fork(**hooks)
    run_command(of_command["become_child"](descriptors))


if __name__ == "__main__":
    main()
