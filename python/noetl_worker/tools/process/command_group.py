"""A cgroup for the processes of a worker's commands. It limits their number, so that a fork bomb in a command does not
block the whole machine.

RLIMIT_NPROC is no substitute: it counts all processes of the user, also the worker's. The worker can create the cgroup
only below a cgroup to which it may write (`commands_group`).

This module uses only the standard library and is loaded by path. The template process (`python_template.py`), from
which commands are forked, joins the cgroup at its start. So the commands' processes are members too.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
GROUP = "noetl-commands-"
"""Name prefix of the cgroup of a worker's commands; the worker's process id follows."""
DELEGATED = ("user.delegate", "trusted.delegate")
"""Extended attributes (xattr) of a cgroup's directory, by which systemd marks the cgroup as delegated to a service."""


def commands_group(worker: int) -> Path:
    """Return the path of the cgroup for the commands of this worker process. The cgroup may not exist.

    With cgroups of version 1 the path is below the worker's own cgroup. With version 2 no cgroup can have both
    processes and limited children, so the path is beside the worker's cgroup, in a parent that was delegated.

    Raises:
        OSError: no cgroup can be made; the text says why.
    """
    lines = OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    own = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
    first = next((path for controllers, path in own.items() if "pids" in controllers.split(",")), None)
    if first is not None:
        parent = CGROUPS / "pids" / first
    elif not own.get(""):
        raise OSError("the worker is in the root cgroup, or has no cgroup of version 2: run it in a delegated cgroup")
    else:
        parent = (CGROUPS / own[""]).parent
        _check_delegated(parent)
    if not os.access(parent, os.W_OK):
        raise OSError(f"{parent} cannot be written")
    return parent / f"{GROUP}{worker}"


def _check_delegated(parent: Path) -> None:
    owner, is_marked = parent.stat().st_uid, False
    for name in DELEGATED:
        with suppress(OSError):
            is_marked = is_marked or os.getxattr(parent, name) == b"1"
    if not is_marked and (owner == 0 or owner != os.geteuid()):
        raise OSError(f"the cgroup {parent} is not delegated: run the worker in a subgroup of a delegated cgroup")
    if "pids" not in (parent / "cgroup.controllers").read_text(encoding="utf-8").split():
        raise OSError(f"the cgroup {parent} has no pids controller: delegate it too (systemd: Delegate=pids)")


def join(limit: int) -> None:
    """Move this process into the cgroup for the commands of its parent, the worker. Child processes follow. If no
    cgroup can be made, do nothing."""
    try:
        group = commands_group(os.getppid())
    except OSError:
        return  # logged at the worker's start
    children = group.parent / "cgroup.subtree_control"
    try:
        _remove_those_of_dead_workers(group.parent)
        if children.exists():
            children.write_text("+pids", encoding="utf-8")
        group.mkdir(exist_ok=True)
        (group / "pids.max").write_text(str(limit), encoding="utf-8")
        (group / "cgroup.procs").write_text("0", encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"noetl-worker: no limit on the number of processes: {error}\n")


def remove_group(worker: int) -> None:
    """Remove the cgroup of a worker whose commands have ended. If the cgroup still has a process, another worker
    removes the cgroup later."""
    with suppress(OSError):
        commands_group(worker).rmdir()


def _remove_those_of_dead_workers(parent: Path) -> None:
    for group in parent.glob(f"{GROUP}*"):
        worker = group.name.removeprefix(GROUP)
        if worker.isdigit() and not Path("/proc", worker).exists():
            with suppress(OSError):  # a command that outlived its worker
                group.rmdir()
