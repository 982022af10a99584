"""What `run --processes` hands to its workers beside the variables: a listening socket, and whom to end with."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from typing import Final

SOCKET: Final = "NOETL_WORKER_PROBES_SOCKET"
"""The descriptor of the socket of the probes: its port is known before the worker runs, and outlives it."""
PORTS: Final = "NOETL_WORKER_PROBES_PORTS"
"""The ports of the supervisor's and all its workers' probes, separated by commas."""
PARENT: Final = "NOETL_WORKER_SUPERVISOR"
_PR_SET_PDEATHSIG: Final = 1


def listening_socket() -> socket.socket | None:
    """The socket that was handed down; None: there is none. Commands do not inherit it."""
    descriptor = os.environ.pop(SOCKET, None)
    if descriptor is None:
        return None
    os.set_inheritable(int(descriptor), False)
    return socket.socket(fileno=int(descriptor))


def probe_ports() -> tuple[int, ...]:
    """Return the ports of the probes of the supervisor and all its workers; none without a supervisor."""
    return tuple(int(port) for port in os.environ.pop(PORTS, "").split(",") if port)


def end_with_parent() -> bool:
    """Drain when the supervisor is gone, however it went (Linux). Whether there is one."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return False
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it went before that
        sys.exit(0)
    return True
