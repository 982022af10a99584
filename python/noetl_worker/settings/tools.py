"""The settings of tools, available in a tool's context and checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.settings import values
from noetl_worker.settings.line import FILE_SUFFIX, SettingLine, setting
from noetl_worker.settings.patterns import Patterns, kubernetes_names


@dataclass(frozen=True)
class ToolSettings:
    """The part of `Settings` that tools see: what they may use of this machine, and values a playbook only names."""

    named: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Text by variable: variables of `FAMILIES`, and those listed in `keychain_env_vars`."""
    own_files: tuple[str, ...] = ()
    """The worker's own files and directories, closed to playbooks."""
    file_roots: str = setting("NOETL_WORKER_FILE_ROOTS")
    pythons: str = setting("NOETL_WORKER_PYTHONS")
    python_packages: str = setting("NOETL_WORKER_PYTHON_PACKAGES", "off", values.choice("off", "wheels", "any"))
    packages_dir: str = setting("NOETL_WORKER_PACKAGES_DIR")
    packages_mb: int = setting("NOETL_WORKER_PACKAGES_MB", "4096", values.integer(1))
    uv_config: str = setting("UV_CONFIG_FILE")
    google_hosts: tuple[str, ...] = setting(
        "NOETL_WORKER_GOOGLE_HOSTS", "googleapis.com,*.googleapis.com", values.subjects
    )
    artifact_root: str = setting("NOETL_ARTIFACT_ROOT")
    data_dir: str = setting("NOETL_DATA_DIR")
    duckdb_memory_limit: str = setting("NOETL_DUCKDB_MEMORY_LIMIT", parse=values.duckdb_memory)
    duckdb_extension_directory: str = setting("NOETL_DUCKDB_EXTENSION_DIRECTORY")
    duckdb_extension_repository: str = setting("NOETL_DUCKDB_EXTENSION_REPOSITORY")
    mcp_url: str = setting("NOETL_MCP_URL", parse=values.optional_url("http", "https"))
    mcp_request_timeout_s: float = setting("NOETL_MCP_REQUEST_TIMEOUT_SECONDS", "60", values.seconds(0.001))
    secrets_dir: str = setting("NOETL_SECRETS_DIR")
    keychain_env_vars: tuple[str, ...] = setting("NOETL_KEYCHAIN_ENV_VARS", parse=values.subjects)
    task_sequence_max_iterations: int = setting("NOETL_TASK_SEQUENCE_MAX_ITERATIONS", "1000000", values.integer(1))
    kubernetes_allow: Patterns | None = setting("NOETL_WORKER_KUBERNETES_ALLOW", parse=kubernetes_names)
    kubernetes_own_secrets: tuple[str, ...] = setting("NOETL_WORKER_KUBERNETES_OWN_SECRETS", parse=values.subjects)


@dataclass(frozen=True, slots=True)
class NamedVariables:
    """A family of variables whose names the user chooses."""

    pattern: re.Pattern[str]
    parse: Callable[[str], Any]
    is_secret: bool = False

    def match_variable(self, name: str) -> str | None:
        """Return the family's variable that `name` is or names a file for; None for any other name."""
        if self.is_secret and name.endswith(FILE_SUFFIX):
            name = name.removesuffix(FILE_SUFFIX)
        return name if self.pattern.fullmatch(name) else None

    def line(self, variable: str) -> SettingLine:
        return SettingLine("", variable, (), "", self.is_secret, self.parse)


FAMILIES: Final = (
    NamedVariables(re.compile(r"NOETL_MCP_\w+_(?:ENDPOINT|URL)"), values.url("http", "https")),
    NamedVariables(re.compile(r"NOETL_SECRET_\w+_HOSTS"), values.text),
    NamedVariables(re.compile(r"NOETL_SECRET_\w+(?<!_HOSTS)"), values.secret, is_secret=True),
)


def find_family(variable: str) -> NamedVariables | None:
    return next((family for family in FAMILIES if family.pattern.fullmatch(variable)), None)
