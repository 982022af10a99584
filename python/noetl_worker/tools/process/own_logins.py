"""Logins of the worker's own, out of reach of libraries that take one where a playbook's connection has none.

DuckDB's extensions do so, and SQL can read the keys that `httpfs` has found (`current_setting`). A library in C looks
into the process's environment; `os.environ` keeps them, for what reads them because a setting or a document says so.
"""

from __future__ import annotations

import os
from typing import Final

NO_FILE: Final = "/dev/null/none"
"""Where no file can be."""
_LOGINS: Final = (
    *("PGPASSWORD", "PGSERVICE", "PGOAUTHTOKEN", "MYSQL_PWD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "HF_TOKEN"),
)
_FILES: Final = ("PGPASSFILE", "PGSSLCERT", "PGSSLKEY", "HF_TOKEN_PATH")
"""Without the variable it is a file in the home directory."""


def without_logins() -> dict[str, str]:
    """The variables of a process in which such a library finds no file with a login in the worker's home directory."""
    return dict.fromkeys(_FILES, NO_FILE)


def hide_own_logins() -> None:
    """From the libraries of this process. This is for the worker's own process: a library must not."""
    for name in _LOGINS:
        os.unsetenv(name)
    for name in _FILES:
        os.putenv(name, NO_FILE)
