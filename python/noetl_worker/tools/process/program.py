"""The start of a program from a supervisor: 0.2 ms of CPU less than by subprocess.

Read by path into the template process, as `python_template.py` is: the standard library only.
"""

from __future__ import annotations

import os
import signal
from typing import Any


def spawn(request: dict[str, Any], channel: int, out: int, err: int) -> int:
    """The process id of the program, which leads a session of its own, with an empty standard input."""
    os.chdir(request["cwd"])
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ]
        if "channel" in request:
            actions.append((os.POSIX_SPAWN_DUP2, channel, request["channel"]))
        ignored = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python
        argv, env = request["argv"], request["env"]
        return os.posix_spawn(request["program"], argv, env, file_actions=actions, setsid=True, setsigdef=ignored)
    finally:
        os.chdir("/")
