"""Every setting of the worker: its variable, default and form, one `setting(...)` each. texts.ini has the meanings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from urllib.parse import unquote, urlsplit

from noetl_worker.settings import values
from noetl_worker.settings.line import setting, setting_lines
from noetl_worker.settings.nats import NatsSettings
from noetl_worker.settings.networks import DEFAULT_DENIED, parse_items
from noetl_worker.settings.patterns import Patterns, patterns_by_name
from noetl_worker.settings.tools import ToolSettings
from noetl_worker.settings.values import Secret, TlsPaths


@dataclass(frozen=True)
class Settings(ToolSettings, NatsSettings):
    """All settings of a worker. Times are in seconds (`_s`) or milliseconds (`_ms`), sizes in bytes."""

    files_read: tuple[str, ...] = ()
    """Files that settings were read from: a `.env`, a NATS context, files named by `..._FILE`."""

    # ── the control plane ──
    server_url: str = setting("NOETL_SERVER_URL", "http://localhost:8082", values.url("http", "https"))
    control_plane: str = setting("NOETL_CONTROL_PLANE", "auto", values.choice("auto", "python", "rust"))
    http_timeout_s: float = setting(
        "NOETL_WORKER_HTTP_TIMEOUT_S", "30", values.seconds(0.1), aliases=("NOETL_WORKER_HTTP_TIMEOUT",)
    )
    trusted_servers: tuple[str, ...] = setting("NOETL_WORKER_TRUSTED_SERVERS", parse=values.urls)
    tls_ca: str = setting("NOETL_TLS_CA")
    tls_client_cert: str = setting("NOETL_TLS_CLIENT_CERT")
    tls_client_key: str = setting("NOETL_TLS_CLIENT_KEY")
    internal_api_token: Secret = setting("NOETL_INTERNAL_API_TOKEN", parse=values.secret)

    # ── the worker ──
    worker_id: str = setting("WORKER_ID", aliases=("NOETL_WORKER_ID",))
    pool_name: str = setting("WORKER_POOL_NAME", "default", aliases=("NOETL_WORKER_POOL_NAME",))
    max_concurrent: int = setting(
        "WORKER_MAX_CONCURRENT", "16", values.integer(1, 10_000), aliases=("NOETL_WORKER_MAX_INFLIGHT_COMMANDS",)
    )
    processes: int = setting("NOETL_WORKER_PROCESSES", "1", values.processes)
    engine: str = setting("NOETL_WORKER_ENGINE", "auto", values.choice("auto", "rust", "python"))
    wait: bool = setting("NOETL_WORKER_WAIT", "true", values.boolean)
    command_timeout_s: float = setting(
        "NOETL_WORKER_COMMAND_TIMEOUT_S", "1740", values.seconds(0.1), aliases=("NOETL_WORKER_COMMAND_TIMEOUT_SECONDS",)
    )
    kind_limits: Mapping[str, int] = setting("NOETL_WORKER_KIND_LIMITS", parse=values.numbers_by_name)
    execution_share: float = setting("NOETL_WORKER_EXECUTION_SHARE", "0", values.share)
    started_hold_ms: int = setting("NOETL_WORKER_STARTED_HOLD_MS", "25", values.integer(0, 10_000))
    result_max_bytes: int = setting("NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES", "102400", values.integer(1024))
    max_result_mb: int = setting("NOETL_WORKER_MAX_RESULT_MB", "64", values.integer(1, 64))
    heartbeat_interval_s: float = setting(
        "WORKER_HEARTBEAT_INTERVAL", "15", values.seconds(0.1), aliases=("NOETL_WORKER_HEARTBEAT_INTERVAL",)
    )
    drain_timeout_s: float = setting("NOETL_WORKER_DRAIN_TIMEOUT_S", "25", values.seconds(0))

    undefined: str = setting("NOETL_WORKER_UNDEFINED", "empty", values.choice("empty", "error"))
    kinds: tuple[str, ...] = setting("NOETL_WORKER_KINDS", parse=values.names)
    kinds_deny: tuple[str, ...] = setting("NOETL_WORKER_KINDS_DENY", parse=values.names)
    egress_deny: tuple[str, ...] = setting("NOETL_WORKER_EGRESS_DENY", DEFAULT_DENIED, parse_items)
    credentials_allow: Patterns | None = setting("NOETL_WORKER_CREDENTIALS_ALLOW", parse=patterns_by_name)

    # ── what commands may do ──
    isolation: str = setting("NOETL_WORKER_ISOLATION", "basic", values.choice("basic", "off"))
    allow_namespaces: bool = setting("NOETL_WORKER_ALLOW_NAMESPACES", "false", values.boolean)
    environment_kept: tuple[str, ...] = setting("NOETL_WORKER_ENVIRONMENT_KEPT", parse=values.subjects)
    process_memory_mb: int | None = setting("NOETL_WORKER_PROCESS_MEMORY_MB", parse=values.optional_integer(0))

    # ── the outbox ──
    outbox: str = setting("NOETL_WORKER_OUTBOX", "on_failure", values.choice("on_failure", "always", "off"))
    outbox_dir: str = setting("NOETL_WORKER_OUTBOX_DIR")

    # ── observability ──
    metrics_bind: str = setting("WORKER_METRICS_BIND", "0.0.0.0:9090", values.bind)
    debug_token: Secret = setting("NOETL_WORKER_DEBUG_TOKEN", parse=values.secret)
    lag_poll_interval_s: float = setting("WORKER_NATS_LAG_POLL_INTERVAL", "5", values.seconds(1))
    log_level: str = setting("LOG_LEVEL", "info", values.choice("debug", "info", "warning", "error"))
    log_commands: str = setting(
        "NOETL_WORKER_LOG_COMMANDS", "sampled", values.choice("failed", "sampled", "all", "none")
    )
    fleet: str = setting("NOETL_WORKER_FLEET", "off", values.choice("off", "nats"))

    # ── ids ──
    snowflake_node_id: int | None = setting(
        "NOETL_SNOWFLAKE_NODE_ID", parse=values.optional_integer(0, 1023), aliases=("NOETL_SHARD_ID",)
    )

    @property
    def plane_tls(self) -> TlsPaths:
        return TlsPaths(self.tls_ca, self.tls_client_cert, self.tls_client_key)

    @property
    def nats_tls(self) -> TlsPaths:
        """Return the TLS files for NATS: its own CA and certificate, else the control plane's."""
        ca, pair = self.nats_ca or self.tls_ca, (self.nats_cert, self.nats_key)
        return TlsPaths(ca, *(pair if self.nats_cert else (self.tls_client_cert, self.tls_client_key)))

    def pick_tool_settings(self, own_files: Iterable[str]) -> ToolSettings:
        """Return the settings that tools may see: none of the worker's own logins.

        Args:
            own_files: paths of the worker's own.
        """
        given = {one.name: getattr(self, one.name) for one in fields(ToolSettings)}
        return ToolSettings(**{**given, "own_files": tuple(own_files)})

    @property
    def unused(self) -> tuple[str, ...]:
        """Variables that are set and have no effect without another one."""
        has_user = self.nats_user or any(urlsplit(url).username for url in self.nats_url.reveal().split(","))
        return ("NATS_PASSWORD",) if self.nats_password.reveal() and not has_user else ()

    def secrets(self) -> tuple[str, ...]:
        """Return the worker's own secrets in clear, which it must never send."""
        urls = (urlsplit(url) for url in self.nats_url.reveal().split(","))
        logins = [unquote(url.password or url.username or "") for url in urls if url.username]
        own = [
            getattr(self, line.field).reveal()
            for line in setting_lines(Settings)
            if line.is_secret and line.field != "nats_url"
        ]
        return tuple(filter(None, (*own, *logins)))
