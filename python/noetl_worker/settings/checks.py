"""The checks for settings that contradict each other. Each raises SettingsError, which ends the start."""

from __future__ import annotations

from collections.abc import Mapping

from noetl_worker.errors import SettingsError
from noetl_worker.settings.model import Settings
from noetl_worker.settings.nats import DEAD_LETTER_SUBJECT
from noetl_worker.settings.sources import GivenText
from noetl_worker.settings.tools import find_family


def check_families(given: Mapping[str, GivenText]) -> None:
    """Check the values of variables with a name part chosen by the user, such as NOETL_SECRET_<NAME> (FAMILIES). All
    other variables are checked when they are parsed."""
    for variable, found in given.items():
        if (family := find_family(variable)) is not None:
            family.line(variable).value(found.text)


def check_together(settings: Settings) -> None:
    _check_pairs(settings)
    _check_logins(settings)
    if settings.brings(DEAD_LETTER_SUBJECT):
        raise SettingsError(
            "NATS_FILTER_SUBJECT" if settings.nats_filter_subjects else "NATS_SUBJECT",
            ", ".join(settings.filters),
            f"subjects without {DEAD_LETTER_SUBJECT}, else dead letters are pulled as commands",
        )
    if settings.processes > 1 and settings.snowflake_node_id is not None:
        raise SettingsError(
            "NOETL_SNOWFLAKE_NODE_ID",
            str(settings.snowflake_node_id),
            "unset with NOETL_WORKER_PROCESSES above 1: two processes of one node would make the same event ids",
        )
    if settings.max_ack_pending < settings.max_concurrent:
        raise SettingsError(
            "NOETL_WORKER_MAX_ACK_PENDING",
            str(settings.max_ack_pending),
            f"at least WORKER_MAX_CONCURRENT ({settings.max_concurrent}), else slots stay empty",
        )


def _check_pairs(settings: Settings) -> None:
    for cert, key, name, other in (
        (settings.tls_client_cert, settings.tls_client_key, "NOETL_TLS_CLIENT_CERT", "NOETL_TLS_CLIENT_KEY"),
        (settings.nats_cert, settings.nats_key, "NATS_CERT", "NATS_KEY"),
    ):
        if bool(cert) != bool(key):
            raise SettingsError(name, cert, f"set it together with {other}, or neither")


def _check_logins(settings: Settings) -> None:
    """Check that at most one of NATS_CREDS, NATS_NKEY and NATS_SEED is set, and that NATS_JWT comes with a key.
    Otherwise the intended login is unclear."""
    keys = {"NATS_CREDS": settings.nats_creds, "NATS_NKEY": settings.nats_nkey, "NATS_SEED": settings.nats_seed}
    named = [name for name, value in keys.items() if value]
    if len(named) > 1:
        raise SettingsError(named[1], "***", f"set it or {named[0]}, not both")
    if settings.nats_jwt and named in ([], ["NATS_CREDS"]):
        raise SettingsError("NATS_JWT", "***", "set it together with NATS_SEED or NATS_NKEY, the key it belongs to")
