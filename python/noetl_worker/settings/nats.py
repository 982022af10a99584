"""The settings for NATS, its stream and the durable consumer, in a base class of `Settings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from noetl_worker.settings import values
from noetl_worker.settings.line import setting
from noetl_worker.settings.values import Secret

DEAD_LETTER_SUBJECT: Final = "noetl.dead_letters"
"""Subject of the dead letters: messages that can never run, each with its reason."""
NO_POOL: Final = "legacy"
"""Pool name for commands without a pool, as in NoETL's own Python worker. The subject of such a command is
NATS_SUBJECT itself."""
SYSTEM_POOL: Final = "system"
"""Pool of the control planes' own commands: wasm plug-ins (`__orchestrate__`, run by default on the Rust plane 3.54.0)
and playbooks whose path begins with `system/` (read in both planes' source). A worker serves this pool only if its
settings name the pool."""


def read_pool(subject: str, base: str) -> str:
    """Return the name of the worker pool in a command's subject <base>.<pool>.<execution>; "" for a subject of another
    form."""
    return subject[len(base) + 1 :].partition(".")[0] if subject.startswith(f"{base}.") else ""


def covers(pattern: str, subject: str) -> bool:
    """Return True if `pattern` matches every message of `subject`; both may have the wildcards * and >."""
    have, want = pattern.split("."), subject.split(".")
    for at, token in enumerate(have):
        if token == ">":
            return len(want) > at
        if at >= len(want) or want[at] == ">" or (token != "*" and token != want[at]):
            return False
    return len(have) == len(want)


@dataclass(frozen=True)
class NatsSettings:
    """The settings for NATS: servers and login, stream and durable consumer."""

    nats_url: Secret = setting(
        "NATS_URL",
        "nats://localhost:4222",
        values.nats_servers,
        meaning="NATS servers, comma-separated; a user and password in a URL are used",
        source="Rust worker",
    )
    nats_user: str = setting("NATS_USER", meaning="NATS user; wins over the URL's", source="Rust worker")
    nats_password: Secret = setting("NATS_PASSWORD", parse=values.secret, meaning="NATS password", source="Rust worker")
    nats_token: Secret = setting("NATS_TOKEN", parse=values.secret, meaning="NATS token", source="NATS CLI")
    nats_creds: str = setting("NATS_CREDS", parse=values.file, meaning="path of a .creds file", source="NATS CLI")
    nats_nkey: str = setting(
        "NATS_NKEY", parse=values.file, meaning="path of a file with an NKEY seed", source="NATS CLI"
    )
    nats_seed: Secret = setting("NATS_SEED", parse=values.secret, meaning="NKEY seed itself", source="NATS CLI")
    nats_jwt: Secret = setting(
        "NATS_JWT", parse=values.secret, meaning="user JWT; NATS_SEED or NATS_NKEY has its key", source="NATS CLI"
    )
    nats_context: str = setting(
        "NATS_CONTEXT",
        meaning="a saved connection of the NATS CLI (name or file), for each address, login and TLS file that is not "
        "set otherwise",
        source="NATS CLI",
    )
    nats_ca: str = setting(
        "NATS_CA", parse=values.file, meaning="CA bundle (PEM) of NATS; empty: NOETL_TLS_CA", source="NATS CLI"
    )
    nats_cert: str = setting(
        "NATS_CERT",
        parse=values.file,
        meaning="client certificate (PEM) for NATS; empty: NOETL_TLS_CLIENT_CERT",
        source="NATS CLI",
    )
    nats_key: str = setting("NATS_KEY", parse=values.file, meaning="client key (PEM) for NATS", source="NATS CLI")
    nats_stream: str = setting(
        "NATS_STREAM",
        meaning="stream; empty: the stream that has NATS_SUBJECT, created if there is none",
        source="Rust worker",
    )
    nats_consumer: str = setting(
        "NATS_CONSUMER",
        "noetl_worker",
        meaning="durable pull consumer, shared by all workers of one pool",
        source="ours, since another worker that shares a durable recreates it",
    )
    nats_subject: str = setting(
        "NATS_SUBJECT", "noetl.commands", meaning="base subject of command notifications", source="Rust worker"
    )
    nats_filter_subjects: tuple[str, ...] = setting(
        "NATS_FILTER_SUBJECT",
        parse=values.texts,
        meaning="filter subjects, comma-separated; empty: those of the pools, else NATS_SUBJECT and NATS_SUBJECT.>",
        source="Rust worker",
    )
    pool_segments: tuple[str, ...] = setting(
        "NOETL_WORKER_POOL_SEGMENTS",
        parse=values.pool_segments,
        meaning="pools whose commands run here, comma-separated; legacy: the bare NATS_SUBJECT; empty: every pool but "
        "system. Pools that NATS_FILTER_SUBJECT names win over this list",
        source="Python worker (there: legacy,shared,python)",
    )
    bridge_health: str = setting(
        "NOETL_BRIDGE_HEALTH",
        parse=values.optional(values.url("http", "https"), ""),
        meaning="URL at which workers and `doctor` reach the bridge's probes; `noetl-worker bridge` writes it into "
        "the stream's metadata, the chart sets it",
    )
    ack_wait_s: float = setting(
        "NOETL_WORKER_ACK_WAIT_S",
        "30",
        values.seconds(1),
        aliases=("NOETL_WORKER_NATS_ACK_WAIT_SECONDS",),
        meaning="ack_wait of the durable; a delivery is extended (in_progress) every third of it",
        unit="s",
        source="JetStream's default",
    )
    max_ack_pending: int = setting(
        "NOETL_WORKER_MAX_ACK_PENDING",
        "1000",
        values.integer(1),
        aliases=("NOETL_WORKER_NATS_MAX_ACK_PENDING",),
        meaning="most unacknowledged messages over the whole pool",
        unit="messages",
        source="JetStream's default",
    )
    claim_lease_s: float = setting(
        "NOETL_WORKER_CLAIM_LEASE_S",
        "120",
        values.seconds(0),
        aliases=("NOETL_COMMAND_CLAIM_LEASE_SECONDS",),
        meaning="lease of a claim on the Python plane: an interrupted command is redelivered when its lease is over",
        unit="s",
        source="Python plane",
    )

    @property
    def filters(self) -> tuple[str, ...]:
        """Return the subject filters of the durable consumer: NATS_FILTER_SUBJECT, else the subjects of the pools in
        NOETL_WORKER_POOL_SEGMENTS, else the subjects of all commands."""
        base = self.nats_subject
        pool_filters = (base if pool == NO_POOL else f"{base}.{pool}.>" for pool in self.pool_segments)
        return self.nats_filter_subjects or tuple(pool_filters) or (base, f"{base}.>")

    @property
    def pools(self) -> frozenset[str] | None:
        """Return the pools that this worker serves: the pools in NATS_FILTER_SUBJECT, else NOETL_WORKER_POOL_SEGMENTS.

        None means every pool except `system`. A filter such as `noetl.commands.shared.>` names the pool `shared`. If a
        filter names no pool, as `noetl.commands.>` does, NOETL_WORKER_POOL_SEGMENTS decides.
        """
        filters = (subject for subject in self.nats_filter_subjects if subject != self.nats_subject)
        named = {read_pool(subject, self.nats_subject) for subject in filters}
        if named and not named & {"", "*", ">"}:
            return frozenset(named)
        return frozenset(self.pool_segments) - {NO_POOL} if self.pool_segments else None

    @property
    def has_system_pool(self) -> bool:
        return SYSTEM_POOL in (self.pools or ())

    def brings(self, subject: str) -> bool:
        """Return True if the durable consumer's filters match messages that are published to `subject`."""
        return any(covers(pattern, subject) for pattern in self.filters)

    @property
    def nats_servers(self) -> list[str]:
        """Return the URLs of the NATS servers without user and password, safe to log."""
        return [_strip_user_info(server) for server in self.nats_url.reveal().split(",")]


def _strip_user_info(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
