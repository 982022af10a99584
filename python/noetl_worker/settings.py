"""Environment, `.env` and flags -> one frozen `Settings`; every default with its unit and source.

Nothing falls back in silence: a value that does not parse stops the start and names the variable, the value and
what is allowed. Each setting is one `setting(...)` line; the README's table is generated from the same lines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import environ

from noetl_worker import setting_values as values
from noetl_worker.setting_checks import check_together
from noetl_worker.setting_line import SETTINGS, SettingLine, setting
from noetl_worker.setting_sources import chosen_texts
from noetl_worker.setting_values import Secret

__all__ = ["SETTINGS", "Secret", "SettingLine", "Settings", "load_settings"]


@environ.config(prefix="", frozen=True)
class Settings:
    """Everything that can be set, once. Times are seconds (`_s`) or milliseconds (`_ms`), sizes bytes."""

    # ── NATS ──
    nats_url: Secret = setting(
        "nats_url",
        "NATS_URL",
        "nats://localhost:4222",
        values.nats_servers,
        source="Rust worker",
        help="NATS servers, comma-separated; user-info in the URL is used",
    )
    nats_user: str = setting(
        "nats_user", "NATS_USER", "", values.text, source="Rust worker", help="NATS user; wins over the URL's"
    )
    nats_password: Secret = setting(
        "nats_password", "NATS_PASSWORD", "", values.secret, source="Rust worker", help="NATS password"
    )
    nats_token: Secret = setting("nats_token", "NATS_TOKEN", "", values.secret, source="NATS CLI", help="NATS token")
    nats_creds: str = setting(
        "nats_creds", "NATS_CREDS", "", values.text, source="NATS CLI", help="path of a .creds file"
    )
    nats_stream: str = setting(
        "nats_stream",
        "NATS_STREAM",
        "",
        values.text,
        source="Rust worker",
        help="stream; empty: the stream that owns NATS_SUBJECT, made if there is none",
    )
    nats_consumer: str = setting(
        "nats_consumer",
        "NATS_CONSUMER",
        "noetl_worker",
        values.text,
        source="ours: a durable shared with another worker is recreated by it (wire.md T-23)",
        help="durable pull consumer, shared by all workers of one pool",
    )
    nats_subject: str = setting(
        "nats_subject",
        "NATS_SUBJECT",
        "noetl.commands",
        values.text,
        source="Rust worker",
        help="base subject of command notifications",
    )
    nats_filter_subjects: tuple[str, ...] = setting(
        "nats_filter_subjects",
        "NATS_FILTER_SUBJECT",
        "",
        values.subjects,
        source="Rust worker",
        help="filter(s), comma-separated; empty: NATS_SUBJECT and NATS_SUBJECT.>",
    )
    ack_wait_s: float = setting(
        "ack_wait_s",
        "NOETL_WORKER_ACK_WAIT_S",
        "30",
        values.seconds(1),
        aliases=("NOETL_WORKER_NATS_ACK_WAIT_SECONDS",),
        unit="s",
        source="JetStream's default",
        help="ack_wait of the durable; in_progress goes out every third of it",
    )
    max_ack_pending: int = setting(
        "max_ack_pending",
        "NOETL_WORKER_MAX_ACK_PENDING",
        "1000",
        values.whole(1),
        aliases=("NOETL_WORKER_NATS_MAX_ACK_PENDING",),
        unit="messages",
        source="JetStream's default",
        help="unacknowledged messages over the whole pool",
    )
    max_deliver: int = setting(
        "max_deliver",
        "NOETL_WORKER_MAX_DELIVER",
        "-1",
        values.whole(-1),
        aliases=("NOETL_WORKER_NATS_MAX_DELIVER",),
        unit="deliveries",
        source="ours: an exhausted message is invisible to KEDA (peers.md 0.8); we set poison aside ourselves",
        help="max_deliver of the durable; -1 is unlimited",
    )
    claim_lease_s: float = setting(
        "claim_lease_s",
        "NOETL_WORKER_CLAIM_LEASE_S",
        "120",
        values.seconds(0),
        aliases=("NOETL_COMMAND_CLAIM_LEASE_SECONDS",),
        unit="s",
        source="Python plane",
        help="the Python plane's lease of a claim: an interrupted command comes back when it is over",
    )
    max_not_found: int = setting(
        "max_not_found",
        "NOETL_WORKER_MAX_NOT_FOUND",
        "6",
        values.whole(1),
        unit="deliveries",
        source="ours",
        help="deliveries of a command nobody knows (claim 404) before it is a dead letter",
    )
    dead_letter_subject: str = setting(
        "dead_letter_subject",
        "NOETL_WORKER_DEAD_LETTER_SUBJECT",
        "noetl.dead_letters",
        values.text,
        source="ours",
        help="where messages that can never run are kept, with the reason",
    )

    # ── the control plane ──
    server_url: str = setting(
        "server_url",
        "NOETL_SERVER_URL",
        "http://localhost:8082",
        values.url("http", "https"),
        source="Rust worker",
        help="control plane for the registry and for notifications without server_url",
    )
    control_plane: str = setting(
        "control_plane",
        "NOETL_CONTROL_PLANE",
        "auto",
        values.choice("auto", "python", "rust"),
        source="ours",
        help="dialect; auto asks GET /api/health once per server",
    )
    http_timeout_s: float = setting(
        "http_timeout_s",
        "NOETL_WORKER_HTTP_TIMEOUT_S",
        "30",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_HTTP_TIMEOUT",),
        unit="s",
        source="Rust worker",
        help="total time of one control-plane request",
    )
    http_transport: str = setting(
        "http_transport",
        "NOETL_WORKER_HTTP_TRANSPORT",
        "auto",
        values.choice("auto", "pyreqwest", "httpx"),
        source="ours",
        help="library below the control-plane client; auto: pyreqwest where installed",
    )
    trusted_servers: tuple[str, ...] = setting(
        "trusted_servers",
        "NOETL_WORKER_TRUSTED_SERVERS",
        "",
        values.urls,
        source="ours",
        help="other control planes that get the bearer token when a notification names them, comma-separated",
    )
    tls_ca: str = setting("tls_ca", "NOETL_TLS_CA", "", values.text, source="Rust worker", help="CA bundle (PEM)")
    tls_client_cert: str = setting(
        "tls_client_cert", "NOETL_TLS_CLIENT_CERT", "", values.text, source="Rust worker", help="client cert (PEM)"
    )
    tls_client_key: str = setting(
        "tls_client_key", "NOETL_TLS_CLIENT_KEY", "", values.text, source="Rust worker", help="client key (PEM)"
    )
    internal_api_token: Secret = setting(
        "internal_api_token",
        "NOETL_INTERNAL_API_TOKEN",
        "",
        values.secret,
        source="Rust worker",
        help="bearer token sent with every control-plane request",
    )

    # ── the worker ──
    worker_id: str = setting(
        "worker_id",
        "WORKER_ID",
        "",
        values.text,
        aliases=("NOETL_WORKER_ID",),
        source="Rust worker",
        help="name in claims and registry; Python plane: made unique by a suffix",
    )
    pool_name: str = setting(
        "pool_name",
        "WORKER_POOL_NAME",
        "default",
        values.text,
        aliases=("NOETL_WORKER_POOL_NAME",),
        source="Rust worker",
        help="pool label in the registry; never a filter",
    )
    max_concurrent: int = setting(
        "max_concurrent",
        "WORKER_MAX_CONCURRENT",
        "16",
        values.whole(1, 10_000),
        aliases=("NOETL_WORKER_MAX_INFLIGHT_COMMANDS",),
        unit="commands",
        source="ours (Rust worker 4, Python worker 8)",
        help="slots: commands that run at the same time",
    )
    command_timeout_s: float = setting(
        "command_timeout_s",
        "NOETL_WORKER_COMMAND_TIMEOUT_S",
        "1740",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_COMMAND_TIMEOUT_SECONDS",),
        unit="s",
        source="ours: the Python plane gives a command away at 1,800 s (wire.md 3.2)",
        help="limit of a command that sets none",
    )
    command_timeout_max_s: float = setting(
        "command_timeout_max_s",
        "NOETL_WORKER_COMMAND_TIMEOUT_MAX_S",
        "86400",
        values.seconds(0.1),
        unit="s",
        source="ours",
        help="hard limit: a command that asks for more gets this",
    )
    cancellation_poll_s: float = setting(
        "cancellation_poll_s",
        "NOETL_WORKER_CANCELLATION_POLL_S",
        "5",
        values.seconds(0),
        unit="s",
        source="ours",
        help="how often a running command asks whether its execution is cancelled; 0: never",
    )
    kind_limits: Mapping[str, int] = setting(
        "kind_limits",
        "NOETL_WORKER_KIND_LIMITS",
        "",
        values.numbers_by_name(1),
        unit="commands",
        source="ours",
        help="most commands of a kind at the same time: postgres=4,container=2",
    )
    slot_costs: Mapping[str, int] = setting(
        "slot_costs",
        "NOETL_WORKER_SLOT_COSTS",
        "",
        values.numbers_by_name(1),
        unit="slots",
        source="ours",
        help="slots that a command of a kind takes, 1 unless named: container=4",
    )
    rate_limit: float = setting(
        "rate_limit",
        "NOETL_WORKER_RATE_LIMIT",
        "0",
        values.seconds(0),
        unit="commands/s",
        source="ours",
        help="most commands that are pulled in a second; 0: no limit",
    )
    started_hold_ms: int = setting(
        "started_hold_ms",
        "NOETL_WORKER_STARTED_HOLD_MS",
        "25",
        values.whole(0, 10_000),
        unit="ms",
        source="ours",
        help="how long command.started waits for a fast command's one batch",
    )
    result_max_bytes: int = setting(
        "result_max_bytes",
        "NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES",
        "102400",
        values.whole(1024),
        unit="bytes",
        source="both planes",
        help="largest result inside an event; more goes to the result store",
    )
    heartbeat_interval_s: float = setting(
        "heartbeat_interval_s",
        "WORKER_HEARTBEAT_INTERVAL",
        "15",
        values.seconds(0.1),
        aliases=("NOETL_WORKER_HEARTBEAT_INTERVAL",),
        unit="s",
        source="Rust worker",
        help="registry heartbeat; the Python plane calls 30 s of silence stale",
    )
    drain_timeout_s: float = setting(
        "drain_timeout_s",
        "NOETL_WORKER_DRAIN_TIMEOUT_S",
        "25",
        values.seconds(0),
        unit="s",
        source="ours (Kubernetes gives 30 s)",
        help="how long running commands may finish after SIGTERM",
    )
    loop: str = setting(
        "loop",
        "NOETL_WORKER_LOOP",
        "auto",
        values.choice("auto", "uvloop", "asyncio"),
        source="ours",
        help="event loop; auto: uvloop where installed",
    )

    unknown_fields: str = setting(
        "unknown_fields",
        "NOETL_WORKER_UNKNOWN_FIELDS",
        "warn",
        values.choice("warn", "error"),
        source="ours",
        help="what a field that a tool does not know is: a line in the log, or a failed command",
    )
    undefined: str = setting(
        "undefined",
        "NOETL_WORKER_UNDEFINED",
        "empty",
        values.choice("empty", "error"),
        source="ours (Jinja's and the planes' way is empty)",
        help="what a template's unknown variable is",
    )
    credential_ttl_s: float = setting(
        "credential_ttl_s",
        "NOETL_WORKER_CREDENTIAL_TTL_S",
        "60",
        values.seconds(0),
        unit="s",
        source="ours (Python worker 300)",
        help="how long a fetched credential is used again; 0: every command asks",
    )

    # ── the outbox ──
    outbox: str = setting(
        "outbox",
        "NOETL_WORKER_OUTBOX",
        "on_failure",
        values.choice("on_failure", "always", "off"),
        source="ours",
        help="when terminal events are written to disk: at the first refused try, before the first try, never",
    )
    outbox_dir: str = setting(
        "outbox_dir",
        "NOETL_WORKER_OUTBOX_DIR",
        "",
        values.text,
        source="ours",
        help="directory of the outbox, shared by the workers of a machine; empty: below the temporary directory",
    )
    outbox_max_rows: int = setting(
        "outbox_max_rows",
        "NOETL_WORKER_OUTBOX_MAX_ROWS",
        "10000",
        values.whole(1),
        unit="event sets",
        source="ours",
        help="a fuller outbox stops the pulling",
    )
    outbox_max_bytes: int = setting(
        "outbox_max_bytes",
        "NOETL_WORKER_OUTBOX_MAX_BYTES",
        "268435456",
        values.whole(1024),
        unit="bytes",
        source="ours",
        help="a larger outbox stops the pulling",
    )

    # ── observability ──
    metrics_bind: str = setting(
        "metrics_bind",
        "WORKER_METRICS_BIND",
        "0.0.0.0:9090",
        values.bind,
        source="Rust worker",
        help="address of /metrics, /healthz, /readyz, /livez; empty: off",
    )
    lag_poll_interval_s: float = setting(
        "lag_poll_interval_s",
        "WORKER_NATS_LAG_POLL_INTERVAL",
        "5",
        values.seconds(1),
        unit="s",
        source="Rust worker",
        help="how often the consumer's lag is read",
    )
    log_level: str = setting(
        "log_level",
        "LOG_LEVEL",
        "info",
        values.choice("debug", "info", "warning", "error"),
        aliases=("NOETL_WORKER_LOG_LEVEL",),
        source="ours",
        help="least level that is logged",
    )
    log_format: str = setting(
        "log_format",
        "NOETL_WORKER_LOG_FORMAT",
        "auto",
        values.choice("auto", "json", "console"),
        source="ours",
        help="auto: console on a terminal, else one JSON object a line",
    )

    # ── ids ──
    snowflake_node_id: int | None = setting(
        "snowflake_node_id",
        "NOETL_SNOWFLAKE_NODE_ID",
        "",
        values.optional_whole(0, 1023),
        aliases=("NOETL_SHARD_ID",),
        source="Rust worker",
        help="node part of event ids; empty: from worker id",
    )
    snowflake_epoch_ms: int = setting(
        "snowflake_epoch_ms",
        "NOETL_SNOWFLAKE_EPOCH_MS",
        "1704067200000",
        values.whole(0),
        unit="ms",
        source="every NoETL component",
        help="epoch of event ids (2024-01-01T00:00:00Z)",
    )

    @property
    def filters(self) -> tuple[str, ...]:
        """The durable's filter subjects: the configured ones, else the bare subject and everything below it."""
        return self.nats_filter_subjects or (self.nats_subject, f"{self.nats_subject}.>")

    def secrets(self) -> tuple[str, ...]:
        """The worker's own secrets, in clear: what it must never send."""
        urls = (urlsplit(url) for url in self.nats_url.reveal().split(","))
        logins = [unquote(url.password or url.username or "") for url in urls if url.username]
        own = (self.nats_password, self.nats_token, self.internal_api_token)
        return tuple(text for text in (*(one.reveal() for one in own), *logins) if text)

    @property
    def nats_servers(self) -> list[str]:
        """Server URLs without user-info: safe to log."""
        return [_without_user_info(server) for server in self.nats_url.reveal().split(",")]


def _without_user_info(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))


def load_settings(
    environment: Mapping[str, str] | None = None,
    *,
    flags: Mapping[str, str | None] | None = None,
    dotenv: Path | None = None,
) -> Settings:
    """Read the settings: flags win over the environment, the environment over `.env`, all over defaults.

    Args:
        environment: variable -> text; default `os.environ`.
        flags: variable -> text of command-line flags; None entries are not given.
        dotenv: a `.env` file; default `.env` in the working directory when there is one.

    Raises:
        SettingsError: a value does not parse, or two settings contradict each other.

    An empty variable counts as unset, but for `WORKER_METRICS_BIND=`, which switches the endpoint off.
    """
    path = dotenv if dotenv is not None else Path(".env")
    chosen = chosen_texts(SETTINGS, os.environ if environment is None else environment, flags or {}, path)
    settings: Settings = environ.to_config(Settings, environ=chosen)
    check_together(settings)
    return settings
