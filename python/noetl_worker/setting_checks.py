"""Settings that are each right and contradict each other: the start is refused, with the variable to change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noetl_worker.errors import SettingsError

if TYPE_CHECKING:
    from noetl_worker.settings import Settings

__all__ = ["check_together"]


def _covers(subject_filter: str, subject: str) -> bool:
    return subject == subject_filter or (subject_filter.endswith(".>") and subject.startswith(subject_filter[:-1]))


def check_together(settings: Settings) -> None:
    if bool(settings.tls_client_cert) != bool(settings.tls_client_key):
        raise SettingsError(
            "NOETL_TLS_CLIENT_CERT",
            settings.tls_client_cert,
            "set it together with NOETL_TLS_CLIENT_KEY, or neither",
        )
    if any(_covers(subject, settings.dead_letter_subject) for subject in settings.filters):
        raise SettingsError(
            "NOETL_WORKER_DEAD_LETTER_SUBJECT",
            settings.dead_letter_subject,
            f"a subject outside of {', '.join(settings.filters)}, else dead letters are pulled as commands",
        )
    if settings.max_ack_pending < settings.max_concurrent:
        raise SettingsError(
            "NOETL_WORKER_MAX_ACK_PENDING",
            str(settings.max_ack_pending),
            f"at least WORKER_MAX_CONCURRENT ({settings.max_concurrent}), else slots stay empty",
        )
    for name, path in (
        ("NOETL_TLS_CA", settings.tls_ca),
        ("NOETL_TLS_CLIENT_CERT", settings.tls_client_cert),
        ("NOETL_TLS_CLIENT_KEY", settings.tls_client_key),
        ("NATS_CREDS", settings.nats_creds),
    ):
        if path and not Path(path).is_file():
            raise SettingsError(name, path, "the path of a file that can be read")
