"""`Settings`: every setting of the worker. The settings of NATS are declared in nats.py, the settings of tools in
tools.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from urllib.parse import unquote, urlsplit

from noetl_worker.settings import values
from noetl_worker.settings.line import setting, setting_lines
from noetl_worker.settings.nats import NatsSettings
from noetl_worker.settings.networks import DEFAULT_DENIED, EgressRule, Networks, parse_items
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
        meaning="URL of the control plane, for the registry and for each command whose notification names no trusted "
        "server",
        source="Rust worker",
    )
    control_plane: str = setting(
        "NOETL_CONTROL_PLANE",
        "auto",
        values.choice("auto", "python", "rust"),
        meaning="which control plane it is; auto asks GET /api/health once per server",
    )
    http_timeout_s: float = setting(
        "NOETL_WORKER_HTTP_TIMEOUT_S",
        "30",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_HTTP_TIMEOUT",),
        meaning="time limit of one control-plane request; reporting an outcome to the Rust plane has none",
        unit="s",
        source="Rust worker",
    )
    trusted_servers: tuple[str, ...] = setting(
        "NOETL_WORKER_TRUSTED_SERVERS",
        parse=values.urls,
        meaning="other control planes that notifications may name, comma-separated; they get the bearer token too",
    )
    tls_ca: str = setting(
        "NOETL_TLS_CA", parse=values.file, meaning="CA bundle (PEM) of the control plane", source="Rust worker"
    )
    tls_client_cert: str = setting(
        "NOETL_TLS_CLIENT_CERT",
        parse=values.file,
        meaning="client certificate (PEM) for the control plane",
        source="Rust worker",
    )
    tls_client_key: str = setting(
        "NOETL_TLS_CLIENT_KEY",
        parse=values.file,
        meaning="client key (PEM) for the control plane",
        source="Rust worker",
    )
    internal_api_token: Secret = setting(
        "NOETL_INTERNAL_API_TOKEN",
        parse=values.secret,
        meaning="bearer token sent with every control-plane request",
        source="Rust worker",
    )

    # ── the worker ──
    worker_id: str = setting(
        "WORKER_ID",
        aliases=("NOETL_WORKER_ID",),
        meaning="name in claims and registry; for the Python plane a suffix makes it unique",
        source="Rust worker",
    )
    pool_name: str = setting(
        "WORKER_POOL_NAME",
        "default",
        aliases=("NOETL_WORKER_POOL_NAME",),
        meaning="pool label in the registry; it filters nothing",
        source="Rust worker",
    )
    max_concurrent: int = setting(
        "WORKER_MAX_CONCURRENT",
        "16",
        values.integer(1, 10_000),
        aliases=("NOETL_WORKER_MAX_INFLIGHT_COMMANDS",),
        meaning="slots: commands that run at the same time",
        unit="commands",
        source="ours (Rust worker 4, Python worker 8)",
    )
    processes: int = setting(
        "NOETL_WORKER_PROCESSES",
        "1",
        values.processes,
        meaning="worker processes below one supervisor, each with WORKER_MAX_CONCURRENT slots; auto: one for each CPU",
        unit="processes",
    )
    engine: str = setting(
        "NOETL_WORKER_ENGINE",
        "auto",
        values.choice("auto", "rust", "python"),
        meaning="what reads notifications, decides cases and fits results; auto: the Rust engine where it is installed",
    )
    wait: bool = setting(
        "NOETL_WORKER_WAIT",
        "true",
        values.boolean,
        meaning="true: a start waits for NATS and the control plane, and is not ready meanwhile; false, for jobs: it "
        "ends with exit code 3 after five tries",
    )
    command_timeout_s: float = setting(
        "NOETL_WORKER_COMMAND_TIMEOUT_S",
        "1740",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_COMMAND_TIMEOUT_SECONDS",),
        meaning="timeout of a command that sets none",
        unit="s",
        source="ours: after 1,800 s the Python plane gives the command to another worker",
    )
    kind_limits: Mapping[str, int] = setting(
        "NOETL_WORKER_KIND_LIMITS",
        parse=values.numbers_by_name,
        meaning="most commands of a kind at the same time: postgres=4,container=2",
        unit="commands",
    )
    execution_share: float = setting(
        "NOETL_WORKER_EXECUTION_SHARE",
        "0",
        values.share,
        meaning="most slots of a worker that one execution takes while others wait; 0: all (docs/operate.md)",
        unit="of the slots",
    )
    started_hold_ms: int = setting(
        "NOETL_WORKER_STARTED_HOLD_MS",
        "25",
        values.integer(0, 10_000),
        meaning="how long command.started is held back, so that a fast command needs one request",
        unit="ms",
    )
    result_max_bytes: int = setting(
        "NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES",
        "102400",
        values.integer(1024),
        meaning="largest result inside an event (the Python plane counts escaped JSON); a larger one goes to the "
        "result store",
        unit="bytes",
        source="both planes",
    )
    max_result_mb: int = setting(
        "NOETL_WORKER_MAX_RESULT_MB",
        "64",
        values.integer(1, 64),
        meaning="largest result of a step; a larger one fails the step, as does one that no later command could be "
        "given",
        unit="MiB",
    )
    heartbeat_interval_s: float = setting(
        "WORKER_HEARTBEAT_INTERVAL",
        "15",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_HEARTBEAT_INTERVAL",),
        meaning="time between registry heartbeats; the Python plane calls a worker stale after 30 s without one",
        unit="s",
        source="Rust worker",
    )
    drain_timeout_s: float = setting(
        "NOETL_WORKER_DRAIN_TIMEOUT_S",
        "25",
        values.seconds(0),
        meaning="how long running commands may finish after SIGTERM",
        unit="s",
        source="ours (Kubernetes gives 30 s)",
    )

    undefined: str = setting(
        "NOETL_WORKER_UNDEFINED",
        "empty",
        values.choice("empty", "error"),
        meaning="an unknown variable in a template: an empty text, or an error",
        source="ours; the default is that of Jinja and the planes",
    )
    kinds: tuple[str, ...] = setting(
        "NOETL_WORKER_KINDS",
        parse=values.names,
        meaning="kinds of tools that run here, comma-separated (sequences and workbook need no mention); empty: all",
    )
    kinds_deny: tuple[str, ...] = setting(
        "NOETL_WORKER_KINDS_DENY",
        parse=values.names,
        meaning="kinds of tools that do not run here, comma-separated; their commands fail with a call.error that "
        "says so",
    )
    egress_deny: tuple[str, ...] = setting(
        "NOETL_WORKER_EGRESS_DENY",
        DEFAULT_DENIED,
        parse_items,
        meaning="where http, mcp, artifact, rhai, script and token addresses may not lead: addresses, networks, "
        "link-local, metadata, loopback, private; none: anywhere",
    )
    credentials_allow: Patterns | None = setting(
        "NOETL_WORKER_CREDENTIALS_ALLOW",
        parse=patterns_by_name,
        meaning="credential aliases by playbook path, both with * and ?: "
        "etl/*=pg-etl-*,s3;billing/invoices=pg-billing. A path that fits no entry has none; empty: any playbook has "
        "any alias (docs/security.md)",
    )

    # ── what commands may do ──
    isolation: str = setting(
        "NOETL_WORKER_ISOLATION",
        "basic",
        values.choice("basic", "off"),
        meaning="how the processes of commands are kept from the worker's secrets (docs/security.md); off in `dev`",
    )
    allow_namespaces: bool = setting(
        "NOETL_WORKER_ALLOW_NAMESPACES",
        "false",
        values.boolean,
        meaning="whether commands may make user namespaces, for rootless containers and the sandbox of a browser in a "
        "step; inside a namespace a command has every right",
    )
    environment_kept: tuple[str, ...] = setting(
        "NOETL_WORKER_ENVIRONMENT_KEPT",
        parse=values.texts,
        meaning="variables that stay readable in /proc, for code that runs before the worker (a sitecustomize): DD_*",
    )
    process_memory_mb: int | None = setting(
        "NOETL_WORKER_PROCESS_MEMORY_MB",
        parse=values.optional(values.integer(0), None),
        meaning="most memory (data) of one process of a command; empty: the machine's; 0: no limit",
        unit="MiB",
    )

    # ── the outbox ──
    outbox: str = setting(
        "NOETL_WORKER_OUTBOX",
        "on_failure",
        values.choice("on_failure", "always", "off"),
        meaning="when terminal events are written to disk; on_failure: at the first refused try, always: before the "
        "first try, off: never",
    )
    outbox_dir: str = setting(
        "NOETL_WORKER_OUTBOX_DIR",
        meaning="directory of the outbox, shared by the workers of a machine; empty: `outbox` in STATE_DIRECTORY, "
        "else `noetl-worker/outbox` in XDG_STATE_HOME or ~/.local/state",
    )

    # ── observability ──
    metrics_bind: str = setting(
        "WORKER_METRICS_BIND",
        "0.0.0.0:9090",
        values.bind,
        meaning="address of /metrics, /healthz, /readyz, /livez, /debug/inflight; empty: off",
        source="Rust worker",
    )
    debug_token: Secret = setting(
        "NOETL_WORKER_DEBUG_TOKEN",
        parse=values.secret,
        meaning="bearer token for /debug/inflight from another machine; empty: from this machine only",
    )
    lag_poll_interval_s: float = setting(
        "WORKER_NATS_LAG_POLL_INTERVAL",
        "5",
        values.seconds(1),
        meaning="how often the consumer's lag is read",
        unit="s",
        source="Rust worker",
    )
    log_level: str = setting(
        "LOG_LEVEL",
        "info",
        values.choice("debug", "info", "warning", "error"),
        meaning="lowest level that is logged; SIGUSR1 changes to debug, and back",
    )
    log_commands: str = setting(
        "NOETL_WORKER_LOG_COMMANDS",
        "sampled",
        values.choice("failed", "sampled", "all", "none"),
        meaning="which finished commands have a log line; sampled: those that failed, and of the others 50 a second, "
        "above that one of 100 (docs/operate.md)",
    )
    fleet: str = setting(
        "NOETL_WORKER_FLEET",
        "off",
        values.choice("off", "nats"),
        meaning="nats: answers `top --fleet` on noetl.workers.DURABLE.status; whoever may publish there sees which "
        "commands run",
    )

    # ── ids ──
    snowflake_node_id: int | None = setting(
        "NOETL_SNOWFLAKE_NODE_ID",
        parse=values.optional(values.integer(0, 1023), None),
        aliases=("NOETL_SHARD_ID",),
        meaning="node part of event ids; empty: a random one",
        source="Rust worker",
    )

    @property
    def plane_tls(self) -> TlsPaths:
        return TlsPaths(self.tls_ca, self.tls_client_cert, self.tls_client_key)

    @property
    def nats_tls(self) -> TlsPaths:
        """Return the TLS files for NATS. If NATS_CA or NATS_CERT is unset, the control plane's CA or certificate is
        used."""
        ca, pair = self.nats_ca or self.tls_ca, (self.nats_cert, self.nats_key)
        return TlsPaths(ca, *(pair if self.nats_cert else (self.tls_client_cert, self.tls_client_key)))

    def pick_tool_settings(self, own_files: Iterable[str]) -> ToolSettings:
        """Return the settings that tools may see. The worker's own logins are not among these settings.

        Args:
            own_files: files and directories of the worker itself, which playbooks may not use.
        """
        given = {one.name: getattr(self, one.name) for one in fields(ToolSettings)}
        egress = EgressRule(Networks.parse(self.egress_deny))
        return ToolSettings(**{**given, "own_files": tuple(own_files), "egress": egress})

    @property
    def unused(self) -> tuple[str, ...]:
        """The variables that are set but have no effect, because a variable that they need is unset."""
        has_user = self.nats_user or any(urlsplit(url).username for url in self.nats_url.reveal().split(","))
        return ("NATS_PASSWORD",) if self.nats_password.reveal() and not has_user else ()

    def secrets(self) -> tuple[str, ...]:
        """Return the worker's own secrets in clear text, to redact them in everything that the worker sends or logs."""
        urls = (urlsplit(url) for url in self.nats_url.reveal().split(","))
        logins = [unquote(url.password or url.username or "") for url in urls if url.username]
        own = [
            getattr(self, line.field).reveal()
            for line in setting_lines(Settings)
            if line.is_secret and line.field != "nats_url"
        ]
        return tuple(filter(None, (*own, *logins)))
