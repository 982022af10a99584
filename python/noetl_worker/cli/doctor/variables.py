"""The check for environment variables that have no effect: a misspelt name, or a password without its user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from noetl_worker.cli.doctor.finding import Finding, fine, warning
from noetl_worker.settings.settings import SETTINGS, Settings
from noetl_worker.settings.sources import advice_on, unknown_names


def check_names(environment: Mapping[str, str], dotenv: Path, settings: Settings) -> Finding:
    """Return a finding that names environment variables which look like settings but have no effect.

    A worker starts in spite of such variables, so that a roll-back to an older version works.
    """
    check, wanted = "variables", "each NOETL_WORKER_... is a setting"
    unknown = unknown_names(SETTINGS, environment, dotenv)
    if settings.unused:
        return warning(check, "NATS_PASSWORD without a user is not sent", wanted, "set NATS_USER beside it")
    if not unknown:
        return fine(check, "all are settings", wanted)
    return warning(check, f"no settings: {', '.join(unknown)}", wanted, advice_on(unknown))
