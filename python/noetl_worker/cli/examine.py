"""`noetl-worker doctor`: find what would keep a worker with these settings from working, with a fix for each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from noetl_worker import __version__
from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import run_quietly
from noetl_worker.observability.terminal import say_json
from noetl_worker.settings.settings import load_settings

EXIT_WRONG: Final = 5


@with_setting_flags(shown=("nats_url", "server_url"))
def doctor(
    flags: SettingFlags,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Leave out what is fine.")] = False,
) -> None:
    """Check everything that a worker with these settings needs: NATS and its
    permissions, stream and durable, the control plane and its version, clocks,
    certificates, and this machine.

    Nothing is changed, created or claimed. Takes every flag of `run` (noetl-worker
    run --help lists them).

    Exit codes: 0 nothing is wrong (there may be warnings); 2 a setting is wrong;
    5 a worker would not start, or not get, run or report its commands.
    """
    from noetl_worker.cli.doctor import State, examine

    findings = run_quietly(examine(load_settings(flags=flags)))
    is_wrong = any(finding.state is State.WRONG for finding in findings)
    if as_json:
        shown: dict[str, Any] = {"ok": not is_wrong, "version": __version__}
        say_json({**shown, "checks": [asdict(finding) for finding in findings]})
    else:
        from noetl_worker.cli.views.findings import print_findings

        print_findings(findings, brief=brief)
    raise typer.Exit(EXIT_WRONG if is_wrong else 0)
