"""Values that the supervisor (`run --processes`) gives its workers: a listening socket, ports and its process id."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Final

SOCKET: Final = "NOETL_WORKER_PROBES_SOCKET"
"""Environment variable with the file descriptor of the socket on which the worker's probes listen. The supervisor opens
this socket. So the supervisor knows the port in advance, and a restarted worker has the same port."""
PORTS: Final = "NOETL_WORKER_PROBES_PORTS"
"""Environment variable with the probe ports of the supervisor and of all its workers, separated by commas."""
PARENT: Final = "NOETL_WORKER_SUPERVISOR"
"""Environment variable with the supervisor's process id."""
_PR_SET_PDEATHSIG: Final = 1


def listening_socket() -> socket.socket | None:
    """Return the probes' socket that the supervisor opened, or None without a supervisor. Processes that run commands
    do not inherit this socket."""
    descriptor = os.environ.pop(SOCKET, None)
    if descriptor is None:
        return None
    os.set_inheritable(int(descriptor), False)
    return socket.socket(fileno=int(descriptor))


def probe_ports() -> tuple[int, ...]:
    """Return the ports of the probes of the supervisor and all its workers. Without a supervisor there are none."""
    return tuple(int(port) for port in os.environ.pop(PORTS, "").split(",") if port)


def end_with_parent() -> bool:
    """Have the kernel send this worker SIGTERM when its supervisor ends (on Linux), so that the worker drains. Return
    True if there is a supervisor."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return False
    if sys.platform == "linux":
        import ctypes  # not at the top: only the worker of a supervisor needs it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # the supervisor ended before the prctl call
        sys.exit(0)
    return True
