"""Hiding of the worker's own logins from client libraries. If a playbook's connection has no login, a library would
otherwise use the worker's login.

DuckDB's extensions are such libraries. SQL could even read the keys that `httpfs` found (`current_setting`). C
libraries read the environment of the process, from which this module removes the logins. Python code still finds the
logins in `os.environ`.
"""

from __future__ import annotations

import os
from typing import Final

NO_FILE: Final = "/dev/null/none"
"""A path that cannot exist: client libraries find no login file there."""
_LOGINS: Final = (
    *("PGPASSWORD", "PGSERVICE", "PGOAUTHTOKEN", "MYSQL_PWD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "HF_TOKEN"),
)
_FILES: Final = ("PGPASSFILE", "PGSSLCERT", "PGSSLKEY", "HF_TOKEN_PATH")
"""Environment variables that hold the paths of login files. If such a variable is not set, a library reads a file in
the home directory."""


def without_logins() -> dict[str, str]:
    """Return environment variables that keep libpq and Hugging Face's library from reading login files in the worker's
    home directory."""
    return dict.fromkeys(_FILES, NO_FILE)


def hide_own_logins() -> None:
    """Hide the worker's logins from the client libraries in this process. Only the worker's own process calls this: a
    program that embeds this package may need the logins."""
    for name in _LOGINS:
        os.unsetenv(name)
    for name in _FILES:
        os.putenv(name, NO_FILE)
