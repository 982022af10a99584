"""The worker's own logins, hidden from libraries that would use them for a playbook's connection without a login.

DuckDB's extensions would use such logins, and SQL can read the keys that `httpfs` found (`current_setting`). A C
library reads the process's environment, from which the logins are removed. `os.environ` keeps the logins for Python
code that reads them on purpose.
"""

from __future__ import annotations

import os
from typing import Final

NO_FILE: Final = "/dev/null/none"
"""A path at which no file can be."""
_LOGINS: Final = (
    *("PGPASSWORD", "PGSERVICE", "PGOAUTHTOKEN", "MYSQL_PWD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "HF_TOKEN"),
)
_FILES: Final = ("PGPASSFILE", "PGSSLCERT", "PGSSLKEY", "HF_TOKEN_PATH")
"""Variables whose default is a file in the home directory."""


def without_logins() -> dict[str, str]:
    """Return variables that keep a client library (libpq, Hugging Face's) from login files in the worker's home."""
    return dict.fromkeys(_FILES, NO_FILE)


def hide_own_logins() -> None:
    """Hide the logins from the libraries of this process. Only the worker's own process does this; a library must
    not."""
    for name in _LOGINS:
        os.unsetenv(name)
    for name in _FILES:
        os.putenv(name, NO_FILE)
