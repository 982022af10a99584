"""Every setting of the worker: its variable, default, form and meaning, one `setting(...)` each."""

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
    server_url: str = setting(
        "NOETL_SERVER_URL",
        "http://localhost:8082",
        values.url("http", "https"),
        source="Rust worker",
        help="URL of the control plane: for the registry, and each command whose notification names no trusted server",
    )
    control_plane: str = setting(
        "NOETL_CONTROL_PLANE",
        "auto",
        values.choice("auto", "python", "rust"),
        help="dialect; auto asks GET /api/health once per server",
    )
    http_timeout_s: float = setting(
        "NOETL_WORKER_HTTP_TIMEOUT_S",
        "30",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_HTTP_TIMEOUT",),
        unit="s",
        source="Rust worker",
        help="time limit of one control-plane request; on the Rust plane the report of an outcome has none",
    )
    trusted_servers: tuple[str, ...] = setting(
        "NOETL_WORKER_TRUSTED_SERVERS",
        parse=values.urls,
        help="other control planes that notifications may name; they get the bearer token too, comma-separated",
    )
    tls_ca: str = setting("NOETL_TLS_CA", source="Rust worker", help="CA bundle (PEM)")
    tls_client_cert: str = setting("NOETL_TLS_CLIENT_CERT", source="Rust worker", help="client cert (PEM)")
    tls_client_key: str = setting("NOETL_TLS_CLIENT_KEY", source="Rust worker", help="client key (PEM)")
    internal_api_token: Secret = setting(
        "NOETL_INTERNAL_API_TOKEN",
        parse=values.secret,
        source="Rust worker",
        help="bearer token sent with every control-plane request",
    )

    # ── the worker ──
    worker_id: str = setting(
        "WORKER_ID",
        aliases=("NOETL_WORKER_ID",),
        source="Rust worker",
        help="name in claims and registry; Python plane: made unique by a suffix",
    )
    pool_name: str = setting(
        "WORKER_POOL_NAME",
        "default",
        aliases=("NOETL_WORKER_POOL_NAME",),
        source="Rust worker",
        help="pool label in the registry; never a filter",
    )
    max_concurrent: int = setting(
        "WORKER_MAX_CONCURRENT",
        "16",
        values.integer(1, 10_000),
        aliases=("NOETL_WORKER_MAX_INFLIGHT_COMMANDS",),
        unit="commands",
        source="ours (Rust worker 4, Python worker 8)",
        help="slots: commands that run at the same time",
    )
    processes: int = setting(
        "NOETL_WORKER_PROCESSES",
        "1",
        values.processes,
        unit="processes",
        help="worker processes below one supervisor, each with these slots; auto: one for each CPU",
    )
    engine: str = setting(
        "NOETL_WORKER_ENGINE",
        "auto",
        values.choice("auto", "rust", "python"),
        help="what reads notifications, decides cases and fits results; auto: the Rust engine where it is installed",
    )
    wait: bool = setting(
        "NOETL_WORKER_WAIT",
        "true",
        values.boolean,
        help="whether a start waits for NATS and the control plane, and is not ready meanwhile; false: it ends with "
        "exit code 3 after five tries, for jobs",
    )
    command_timeout_s: float = setting(
        "NOETL_WORKER_COMMAND_TIMEOUT_S",
        "1740",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_COMMAND_TIMEOUT_SECONDS",),
        unit="s",
        source="ours: the Python plane gives a command away at 1,800 s",
        help="timeout of a command that sets none",
    )
    kind_limits: Mapping[str, int] = setting(
        "NOETL_WORKER_KIND_LIMITS",
        parse=values.numbers_by_name,
        unit="commands",
        help="most commands of a kind at the same time: postgres=4,container=2",
    )
    execution_share: float = setting(
        "NOETL_WORKER_EXECUTION_SHARE",
        "0",
        values.share,
        unit="of the slots",
        help="most slots of a worker that one execution takes while others wait; 0: all (docs/operate.md)",
    )
    started_hold_ms: int = setting(
        "NOETL_WORKER_STARTED_HOLD_MS",
        "25",
        values.integer(0, 10_000),
        unit="ms",
        help="how long command.started is held back, so that a fast command needs one request",
    )
    result_max_bytes: int = setting(
        "NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES",
        "102400",
        values.integer(1024),
        unit="bytes",
        source="both planes",
        help="largest result inside an event (the Python plane counts escaped JSON); more goes to the result store",
    )
    max_result_mb: int = setting(
        "NOETL_WORKER_MAX_RESULT_MB",
        "64",
        values.integer(1, 64),
        unit="MiB",
        help="largest result of a step; more fails the step, as does what no later command could be given",
    )
    heartbeat_interval_s: float = setting(
        "WORKER_HEARTBEAT_INTERVAL",
        "15",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_HEARTBEAT_INTERVAL",),
        unit="s",
        source="Rust worker",
        help="registry heartbeat; the Python plane calls 30 s without one stale",
    )
    drain_timeout_s: float = setting(
        "NOETL_WORKER_DRAIN_TIMEOUT_S",
        "25",
        values.seconds(0),
        unit="s",
        source="ours (Kubernetes gives 30 s)",
        help="how long running commands may finish after SIGTERM",
    )

    undefined: str = setting(
        "NOETL_WORKER_UNDEFINED",
        "empty",
        values.choice("empty", "error"),
        source="ours (Jinja's and the planes' way is empty)",
        help="an unknown variable in a template: an empty text, or an error",
    )
    kinds: tuple[str, ...] = setting(
        "NOETL_WORKER_KINDS",
        parse=values.names,
        help="kinds of tools that run here, comma-separated (sequences and workbook need no mention); empty: all",
    )
    kinds_deny: tuple[str, ...] = setting(
        "NOETL_WORKER_KINDS_DENY",
        parse=values.names,
        help="kinds of tools that do not run here, comma-separated; a command of one is a call.error that says so",
    )
    egress_deny: tuple[str, ...] = setting(
        "NOETL_WORKER_EGRESS_DENY",
        DEFAULT_DENIED,
        parse_items,
        help="where http, mcp, artifact, rhai, script and token addresses may not lead: addresses, networks, "
        "link-local, metadata, loopback, private; none: anywhere",
    )
    credentials_allow: Patterns | None = setting(
        "NOETL_WORKER_CREDENTIALS_ALLOW",
        parse=patterns_by_name,
        help="credential aliases by playbook path, both with * and ?: etl/*=pg-etl-*,s3;billing/invoices=pg-billing. A "
        "path that fits no entry has none; empty: any playbook has any alias (docs/security.md)",
    )

    # ── what commands may do ──
    isolation: str = setting(
        "NOETL_WORKER_ISOLATION",
        "basic",
        values.choice("basic", "off"),
        help="how the processes of commands are kept from the worker's secrets (docs/security.md); `dev`: off",
    )
    allow_namespaces: bool = setting(
        "NOETL_WORKER_ALLOW_NAMESPACES",
        "false",
        values.boolean,
        help="whether commands may make user namespaces, for rootless containers and the sandbox of a browser in a "
        "step; within one a command has every right",
    )
    environment_kept: tuple[str, ...] = setting(
        "NOETL_WORKER_ENVIRONMENT_KEPT",
        parse=values.subjects,
        help="variables that stay readable in /proc, for what runs before the worker (a sitecustomize): DD_*",
    )
    process_memory_mb: int | None = setting(
        "NOETL_WORKER_PROCESS_MEMORY_MB",
        parse=values.optional_integer(0),
        unit="MiB",
        help="most memory (data) of one process of a command; empty: the machine's; 0: no limit",
    )

    # ── the outbox ──
    outbox: str = setting(
        "NOETL_WORKER_OUTBOX",
        "on_failure",
        values.choice("on_failure", "always", "off"),
        help="when terminal events are written to disk: at the first refused try, before the first try, never",
    )
    outbox_dir: str = setting(
        "NOETL_WORKER_OUTBOX_DIR",
        help="directory of the outbox, shared by the workers of a machine; empty: `outbox` in STATE_DIRECTORY, else "
        "`noetl-worker/outbox` in XDG_STATE_HOME or ~/.local/state",
    )

    # ── observability ──
    metrics_bind: str = setting(
        "WORKER_METRICS_BIND",
        "0.0.0.0:9090",
        values.bind,
        source="Rust worker",
        help="address of /metrics, /healthz, /readyz, /livez, /debug/inflight; empty: off",
    )
    debug_token: Secret = setting(
        "NOETL_WORKER_DEBUG_TOKEN",
        parse=values.secret,
        help="bearer token for /debug/inflight from another machine; empty: from this machine only",
    )
    lag_poll_interval_s: float = setting(
        "WORKER_NATS_LAG_POLL_INTERVAL",
        "5",
        values.seconds(1),
        unit="s",
        source="Rust worker",
        help="how often the consumer's lag is read",
    )
    log_level: str = setting(
        "LOG_LEVEL",
        "info",
        values.choice("debug", "info", "warning", "error"),
        help="least level that is logged; SIGUSR1 changes to debug, and back",
    )
    log_commands: str = setting(
        "NOETL_WORKER_LOG_COMMANDS",
        "sampled",
        values.choice("failed", "sampled", "all", "none"),
        help="finished commands that have a log line; sampled: those that failed, and of the others 50 a second, above "
        "that one of 100 (docs/operate.md)",
    )
    fleet: str = setting(
        "NOETL_WORKER_FLEET",
        "off",
        values.choice("off", "nats"),
        help="nats: answers `top --fleet` on noetl.workers.DURABLE.status; whoever may publish there sees what runs",
    )

    # ── ids ──
    snowflake_node_id: int | None = setting(
        "NOETL_SNOWFLAKE_NODE_ID",
        parse=values.optional_integer(0, 1023),
        aliases=("NOETL_SHARD_ID",),
        source="Rust worker",
        help="node part of event ids; empty: from worker id",
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
