"""`noetl-worker completion SHELL`: let a shell complete commands, flags and their values."""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Final

import typer

from noetl_worker.observability.terminal import say

PROGRAM: Final = "noetl-worker"
_VARIABLE: Final = "_NOETL_WORKER_COMPLETE"
"""Environment variable that the shell's completion script sets when it asks for completions."""
_STEP: Final = re.compile(r"""(?:^\s*-\s+|[{,]\s*)step:\s*['"]?([\w.-]+)""", re.MULTILINE)


class Shell(str, Enum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def completion(
    shell: Annotated[Shell | None, typer.Argument(help="Default: the shell in $SHELL.", show_default=False)] = None,
) -> None:
    """Print the completion script of a shell.

    bash: `source <(noetl-worker completion bash)` in ~/.bashrc; zsh: the same in
    ~/.zshrc, after compinit; fish: `noetl-worker completion fish | source`.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    name = shell.value if shell is not None else PurePath(os.environ.get("SHELL", "")).name
    known = [shell.value for shell in Shell]
    if name not in known:
        raise typer.BadParameter(f"name the shell ({', '.join(known)}); $SHELL says {name!r}")
    say(get_completion_script(prog_name=PROGRAM, complete_var=_VARIABLE, shell=name))


def kinds(incomplete: str) -> list[str]:
    """Return the tool kinds that begin with `incomplete`. Plug-ins are listed by name, without loading them."""
    from importlib.metadata import entry_points

    from noetl_worker.tools.built_in import BUILT_IN
    from noetl_worker.tools.registry import ENTRY_POINT_GROUP

    names = {*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))}
    return sorted(name for name in names if name.startswith(incomplete))


def steps(context: typer.Context, incomplete: str) -> list[str]:
    """Return the step names that begin with `incomplete`, from the playbook on the command line.

    The playbook is searched as text, since a half-written playbook is not valid YAML.
    """
    named = [context.params.get("playbook"), *context.args]  # a playbook is in `args` while the flag has no value yet
    try:
        text = Path(str(next(filter(None, named), ""))).read_text(encoding="utf-8", errors="replace")
    except OSError:  # no file is named yet, or it cannot be read
        return []
    return [name for name in dict.fromkeys(_STEP.findall(text)) if name.startswith(incomplete)]


def answer_the_shell() -> list[str] | None:
    """Set typer up for completion if a shell's completion script started this process.

    Return the words typed so far on the command line, or None if no completion script started the process.
    """
    if _VARIABLE not in os.environ:
        return None
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""  # bash; the other shells
    return typed.split()[1:]
