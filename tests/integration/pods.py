"""A `kubectl logs` without a cluster: it shows the log of a worker that runs here."""

from __future__ import annotations

import os
from pathlib import Path

from integration.page_commands import commands_of
from integration.processes import program

_KUBECTL = """#!/bin/sh
# As kubectl does: of pods chosen by a label the last ten lines, unless --tail says otherwise.
case "$1 $2 $3" in "-n noetl logs") ;; *) echo "not the logs: $*" >&2; exit 1;; esac
lines=+1
for word; do case "$word" in -l) lines=10;; esac; done
for word; do case "$word" in --tail=-1) lines=+1;; --tail=*) lines=${word#--tail=};; esac; done
exec tail -n "$lines" "$LOG_OF_THE_POD"
"""


def logged(section: str, log: Path) -> str:
    """What the `kubectl logs` of a section prints of this log, by bash as a reader's."""
    programs = log.parent / "programs"
    programs.mkdir(exist_ok=True)
    kubectl = programs / "kubectl"
    kubectl.write_text(_KUBECTL, encoding="utf-8")
    kubectl.chmod(0o755)
    [command] = [line.text for line in commands_of(section) if line.text.startswith("kubectl ")]
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    asked = program(["bash", "-c", command], {"PATH": path, "LOG_OF_THE_POD": str(log)})
    assert asked.err == ""
    return asked.out
