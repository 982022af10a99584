"""What the doctor's checks find, by their names."""

from __future__ import annotations

import os
from pathlib import Path

from closed_port import closed_port
from noetl_worker.cli.doctor import Finding, State
from noetl_worker.settings.settings import Settings, load_settings


def nowhere() -> dict[str, str]:
    """Addresses at which nobody listens."""
    return {"NATS_URL": f"nats://127.0.0.1:{closed_port()}", "NOETL_SERVER_URL": f"http://127.0.0.1:{closed_port()}"}


def settings(directory: Path, **variables: str) -> Settings:
    return load_settings({"NOETL_WORKER_OUTBOX_DIR": str(directory / "outbox"), **variables}, dotenv=Path(os.devnull))


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    assert len({one.check for one in findings}) == len(findings)
    return {one.check: one for one in findings}


def not_fine(findings: list[Finding]) -> dict[str, State]:
    return {one.check: one.state for one in findings if one.state is not State.FINE}
