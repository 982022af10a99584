"""Limits that the settings put on tools: allowed kinds, confinement, packages and the worker's own files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from noetl_worker.errors import SettingsError
from noetl_worker.pipeline.outbox.directory import directory_out_of_reach, outbox_directory
from noetl_worker.settings.settings import Settings
from noetl_worker.settings.tools import ToolSettings
from noetl_worker.tools import fields, file_roots
from noetl_worker.tools.process import confinement, landlock
from noetl_worker.tools.process.command_group import commands_group
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.process.machine import memory_bytes
from noetl_worker.tools.registry import Registry

log = structlog.get_logger("noetl_worker")

_MOST_FILE_BYTES: Final = 64 << 30
_MOST_DESCRIPTORS: Final = 16_384
_MOST_PROCESSES: Final = 8_192
"""Limit on the number of processes of all commands together. It keeps a command from using up the machine, and no
ordinary command reaches it."""
_LEAST_SHARE: Final = 256 << 20
"""Smallest memory limit of one DuckDB, in bytes. DuckDB can do little with less memory."""
_DUCKDB_KINDS: Final = ("duckdb", "ducklake", "transfer")
_IDENTITIES: Final = ("/var/run/secrets/kubernetes.io/serviceaccount/token",)
"""Paths of files with the machine's own tokens (Kubernetes), which no setting names. Commands may not read these
files."""
_MOVE_ADVICE: Final = (
    "move these files (for example with NOETL_WORKER_OUTBOX_DIR) out of the temporary, the working and the home "
    "directory, or let NOETL_WORKER_FILE_ROOTS name other directories"
)
_MOVE_PACKAGES_ADVICE: Final = (
    "set NOETL_WORKER_PACKAGES_DIR to a directory outside of the temporary, the working and the home directory, run on "
    "a Linux with Landlock, and unset NOETL_WORKER_ALLOW_NAMESPACES; else a command can change the packages of others"
)


def make_registry(settings: Settings) -> Registry:
    """Return the registry of the worker's tools, limited by its settings.

    Raises:
        SettingsError: a setting names an unknown kind.
    """
    registry = Registry(confinement=_confinement(settings), settings=make_tool_settings(settings))
    for variable, names in (
        ("NOETL_WORKER_KINDS", settings.kinds),
        ("NOETL_WORKER_KINDS_DENY", settings.kinds_deny),
    ):
        for name in names:
            if not registry.knows(name):
                guess = fields.nearest(name, registry.kinds())
                allowed = f"name kinds of this worker, which are {', '.join(registry.kinds())}{guess}"
                raise SettingsError(variable, ",".join(names), allowed)
    registry.limit(settings.kinds, settings.kinds_deny)
    return registry


def make_tool_settings(settings: Settings) -> ToolSettings:
    """Return the settings that tools may see, with the directory of installed Python packages filled in."""
    return replace(settings.pick_tool_settings(_own_files(settings)), packages_dir=str(_packages_directory(settings)))


def _packages_directory(settings: Settings) -> Path:
    return Path(settings.packages_dir) if settings.packages_dir else directory_out_of_reach("packages")


def _own_files(settings: Settings) -> list[str]:
    """Return the paths that playbooks may not access: the outbox, files with the worker's secrets, the worker's secrets
    directory, and the installed packages."""
    keys = (settings.nats_creds, settings.nats_nkey, settings.nats_key, settings.tls_client_key, settings.secrets_dir)
    identities = (os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", ""), *filter(os.path.exists, _IDENTITIES))
    places = [str(outbox_directory(settings.outbox_dir))]
    if settings.python_packages != "off":
        places += [str(_packages_directory(settings)), settings.uv_config]
    return [path for path in (*settings.files_read, *keys, *identities, *places) if path]


def log_what_is_not_confined(settings: Settings) -> None:
    """Log the gaps in the confinement of commands: parts of the isolation level that this system lacks, and worker
    files that commands can reach. Log also a missing cgroup, without which the number of processes has no limit."""
    if settings.isolation == "off":
        return
    if lacking := [*confinement.missing(), *landlock.missing()]:
        advice = "run on a kernel that has these, or read docs/security.md"
        log.warning("isolation_incomplete", isolation=settings.isolation, not_on_this_system=lacking, advice=advice)
    tools = make_tool_settings(settings)
    if landlock.is_there() and (files := file_roots.within_reach(tools)) and _duckdb_kinds(settings):
        log.info("own_files_within_reach", of="duckdb", files=files, advice=_MOVE_ADVICE)
    if settings.python_packages != "off" and not protected_paths(settings):
        log.warning("packages_within_reach", directory=tools.packages_dir, advice=_MOVE_PACKAGES_ADVICE)
    if reason := _no_group():
        log.info("process_limit_missing", reason=reason)


def protected_paths(settings: Settings) -> tuple[str, ...]:
    """Return the directory of installed Python packages, as a tuple of one path, if the worker can keep commands from
    changing the directory. Otherwise return an empty tuple.

    No command can create a file in a directory above a protected one. So the packages are not protected if a directory
    above them is one in which commands must be able to create files (`file_roots.within_reach`).
    """
    if "off" in (settings.python_packages, settings.isolation) or settings.allow_namespaces or not landlock.is_there():
        return ()
    directory = str(_packages_directory(settings).resolve())
    return () if directory in file_roots.within_reach(make_tool_settings(settings)) else (directory,)


def _no_group() -> str:
    """Return why no cgroup can be made for the commands, or "" if a cgroup can be made."""
    try:
        commands_group(os.getpid())
    except OSError as error:
        return str(error)
    return ""


def _confinement(settings: Settings) -> Confinement:
    memory_mb = settings.process_memory_mb
    return Confinement(
        settings.isolation,
        file_bytes=_MOST_FILE_BYTES,
        descriptors=_MOST_DESCRIPTORS,
        memory_bytes=memory_bytes() if memory_mb is None else memory_mb << 20,
        allows_namespaces=settings.allow_namespaces,
        processes=0 if settings.isolation == "off" or _no_group() else _MOST_PROCESSES,
        closed=protected_paths(settings),
        duckdb_bytes=0 if settings.isolation == "off" else _duckdb_share(settings),
    )


def _duckdb_kinds(settings: Settings) -> list[str]:
    allowed = settings.kinds or _DUCKDB_KINDS
    return [kind for kind in _DUCKDB_KINDS if kind in allowed and kind not in settings.kinds_deny]


def _duckdb_share(settings: Settings) -> int:
    """Return the memory limit of one DuckDB database in bytes. All commands that may use DuckDB at the same time share
    four fifths of the machine's memory equally."""
    slots = settings.max_concurrent
    allowed = sum(min(slots, settings.kind_limits.get(kind, slots)) for kind in _duckdb_kinds(settings))
    at_once = max(min(allowed, slots), 1)
    usable = memory_bytes() * 4 // 5
    return min(max(usable // at_once, _LEAST_SHARE), usable)
