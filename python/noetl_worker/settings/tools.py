"""The settings of tools, which a tool finds in its context."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.settings import values
from noetl_worker.settings.line import FILE_SUFFIX, SettingLine, setting
from noetl_worker.settings.networks import EgressRule
from noetl_worker.settings.patterns import Patterns, kubernetes_names


@dataclass(frozen=True)
class ToolSettings:
    """The part of `Settings` that tools see."""

    named: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of further environment variables that tools may read, by name. A name matches an entry of `FAMILIES`, or
    `keychain_env_vars` lists it."""
    own_files: tuple[str, ...] = ()
    """Files and directories of the worker itself, which playbooks may not use."""
    egress: EgressRule = field(default_factory=EgressRule)
    """The addresses that tools may not connect to over HTTP."""
    file_roots: str = setting(
        "NOETL_WORKER_FILE_ROOTS",
        meaning="directories that files named by playbooks have to be in, separated by `:`; empty: anywhere but the "
        "kernel's and the worker's own",
    )
    pythons: str = setting(
        "NOETL_WORKER_PYTHONS",
        meaning="interpreters and virtual environments that a python step may name besides the worker's own, "
        "separated by `:`; *: any; empty: none, and any where NOETL_WORKER_ISOLATION is off, as in `dev`",
    )
    python_packages: str = setting(
        "NOETL_WORKER_PYTHON_PACKAGES",
        "off",
        values.choice("off", "wheels", "any"),
        meaning="whether the packages that python steps name are installed; wheels: nothing is built, any: setup code "
        "of strangers runs too (docs/tools/python.md); wheels in `dev`",
    )
    packages_dir: str = setting(
        "NOETL_WORKER_PACKAGES_DIR",
        meaning="directory of installed packages, shared by the workers of a machine; empty: `packages` in "
        "STATE_DIRECTORY, else `noetl-worker/packages` in XDG_STATE_HOME, in /var/lib if the worker may write there, "
        "or in ~/.local/state",
    )
    packages_mb: int = setting(
        "NOETL_WORKER_PACKAGES_MB",
        "4096",
        values.integer(1),
        meaning="size of NOETL_WORKER_PACKAGES_DIR above which the least recently used packages are removed; packages "
        "in use stay",
        unit="MiB",
    )
    uv_config: str = setting(
        "UV_CONFIG_FILE",
        meaning="uv's own settings for packages: index, mirror, constraints, wheelhouse; empty: those of the user and "
        "the machine",
        source="uv",
    )
    google_hosts: tuple[str, ...] = setting(
        "NOETL_WORKER_GOOGLE_HOSTS",
        "googleapis.com,*.googleapis.com",
        values.texts,
        meaning="where a token of the worker's own Google identity may be sent, hosts comma-separated; *: anywhere",
    )
    artifact_root: str = setting(
        "NOETL_ARTIFACT_ROOT", meaning="directory that file artifacts have to be in", source="Rust worker"
    )
    data_dir: str = setting(
        "NOETL_DATA_DIR",
        meaning="directory for duckdb commands without a database: a file for each execution; empty: in memory",
        source="Python worker",
    )
    duckdb_memory_limit: str = setting(
        "NOETL_DUCKDB_MEMORY_LIMIT",
        parse=values.duckdb_memory,
        meaning="memory of one duckdb command: 2GB; empty: its share of the machine's",
    )
    duckdb_extension_directory: str = setting(
        "NOETL_DUCKDB_EXTENSION_DIRECTORY", meaning="directory of DuckDB's extensions; empty: DuckDB's own"
    )
    duckdb_extension_repository: str = setting(
        "NOETL_DUCKDB_EXTENSION_REPOSITORY",
        meaning="address or directory that DuckDB gets extensions from; empty: DuckDB's own",
    )
    mcp_url: str = setting(
        "NOETL_MCP_URL",
        parse=values.optional(values.url("http", "https"), ""),
        meaning="MCP server of a command that names none; NOETL_MCP_ABC_ENDPOINT is that of the server `abc`",
        source="Rust worker",
    )
    mcp_request_timeout_s: float = setting(
        "NOETL_MCP_REQUEST_TIMEOUT_SECONDS",
        "60",
        values.seconds(0.001),
        meaning="limit of an MCP request whose command sets none",
        unit="s",
        source="Rust worker",
    )
    secrets_dir: str = setting(
        "NOETL_SECRETS_DIR",
        parse=values.directory,
        meaning="directory of mounted secrets, for the provider file of the tool secrets",
    )
    keychain_env_vars: tuple[str, ...] = setting(
        "NOETL_KEYCHAIN_ENV_VARS",
        parse=values.texts,
        meaning="variables that the tool secrets may read by their own name, besides those of NOETL_SECRET_*",
        source="Rust worker",
    )
    task_sequence_max_iterations: int = setting(
        "NOETL_TASK_SEQUENCE_MAX_ITERATIONS",
        "1000000",
        values.integer(1),
        meaning="most runs of tasks in one task sequence, so that an endless jump ends",
        unit="tasks",
        source="Rust worker",
    )
    kubernetes_allow: Patterns | None = setting(
        "NOETL_WORKER_KUBERNETES_ALLOW",
        parse=kubernetes_names,
        meaning="what steps of kinds container and script may name: "
        "namespaces=jobs,etl-*;service-accounts=runner;secrets=app-*. A part that is not named allows nothing; empty: "
        "anything (docs/security.md)",
    )
    kubernetes_own_secrets: tuple[str, ...] = setting(
        "NOETL_WORKER_KUBERNETES_OWN_SECRETS",
        parse=values.texts,
        meaning="Secrets with this worker's own settings, comma-separated: no step of kinds container and script gets "
        "them; the chart sets it",
    )


@dataclass(frozen=True, slots=True)
class NamedVariables:
    """A group of environment variables with a name part chosen by the user, such as NOETL_SECRET_<NAME>."""

    pattern: re.Pattern[str]
    parse: Callable[[str], Any]
    """Parser of a variable's text, which raises ValueError with the allowed values."""
    is_secret: bool = False

    def match_variable(self, name: str) -> str | None:
        """Return `name`, without the ending `_FILE` of a secret's variable, if `name` belongs to this group. Else
        return None.

        NOETL_SECRET_X is returned for both NOETL_SECRET_X and NOETL_SECRET_X_FILE (a file with the secret).
        """
        if self.is_secret and name.endswith(FILE_SUFFIX):
            name = name.removesuffix(FILE_SUFFIX)
        return name if self.pattern.fullmatch(name) else None

    def line(self, variable: str) -> SettingLine:
        """Return the description of a setting for `variable`, an environment variable of this group."""
        return SettingLine("", variable, (), "", self.is_secret, self.parse)


FAMILIES: Final = (
    NamedVariables(re.compile(r"NOETL_MCP_\w+_(?:ENDPOINT|URL)"), values.url("http", "https")),
    NamedVariables(re.compile(r"NOETL_SECRET_\w+_HOSTS"), values.text),
    NamedVariables(re.compile(r"NOETL_SECRET_\w+(?<!_HOSTS)"), values.secret, is_secret=True),
)


def find_family(variable: str) -> NamedVariables | None:
    """Return the entry of FAMILIES that matches a variable such as NOETL_SECRET_<NAME>, or None if no entry matches."""
    return next((family for family in FAMILIES if family.pattern.fullmatch(variable)), None)
