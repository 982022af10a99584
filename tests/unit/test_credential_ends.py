"""When what the settings name ends: certificates, chains, bundles, tokens, and what is none of them."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from noetl_worker.remote.transport.credential_ends import CREDENTIALS, credential_expiries
from noetl_worker.settings.settings import SETTINGS, load_settings

CERTIFICATES = Path(__file__, "../../integration/certificates").resolve()


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def jwt(**claims: object) -> str:
    parts = (json.dumps(one).encode() for one in ({"alg": "ed25519-nkey"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


def test_certificates_end_when_openssl_says(tmp_path: Path) -> None:
    bundle, chain = tmp_path / "bundle.pem", tmp_path / "chain.pem"
    texts = {name: (CERTIFICATES / f"{name}.pem").read_text() for name in ("ca", "valid", "expired")}
    bundle.write_text(texts["ca"] + texts["expired"])
    chain.write_text(texts["valid"] + texts["expired"])
    found = credential_expiries(
        load_settings(
            {
                "NOETL_TLS_CA": str(bundle),
                "NATS_CA": str(CERTIFICATES / "ca.pem"),
                "NATS_CERT": str(chain),
                "NATS_KEY": str(CERTIFICATES / "valid.pem"),
            }
        )
    )
    assert found["NATS_CA"] == moment("2124-01-01T00:00:00")
    assert found["NOETL_TLS_CA"] == moment("2124-01-01T00:00:00"), "of a bundle the last"
    assert found["NATS_CERT"] == moment("2024-01-02T00:00:00"), "of a chain the first"


def test_tokens_end_with_their_claim(tmp_path: Path) -> None:
    creds = tmp_path / "worker.creds"
    creds.write_text(f"-----BEGIN NATS USER JWT-----\n{jwt(exp=1900000000)}\n------END NATS USER JWT------\n")
    found = credential_expiries(
        load_settings({"NATS_CREDS": str(creds), "NOETL_INTERNAL_API_TOKEN": jwt(exp=1800000000, sub="worker")})
    )
    assert found == {"NATS_CREDS": 1900000000, "NOETL_INTERNAL_API_TOKEN": 1800000000}


def test_runbook_names_what_is_read_at_the_start_alone(tmp_path: Path) -> None:
    """A new file at the same path is of use to the others without a restart."""
    file, at_start = tmp_path / "file", set()
    beside = {
        "NOETL_TLS_CLIENT_CERT": {"NOETL_TLS_CLIENT_KEY": str(file)},
        "NATS_CERT": {"NATS_KEY": str(file)},
        "NATS_JWT": {"NATS_SEED": "SU"},
    }
    are_in_files = {line.variable: line.file_variable for line in SETTINGS if line.is_secret}
    for name in CREDENTIALS:
        variable = are_in_files.get(name, name)
        file.write_text(jwt(exp=1))
        settings = load_settings({variable: str(file), **beside.get(name, {})})
        file.write_text(jwt(exp=2))
        if credential_expiries(settings)[name] == 1:
            at_start.add(variable)
    runbook = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
    fix = runbook.partition("## NoetlWorkerCredentialEnds")[2].partition("**Fix:**")[2].partition("##")[0]
    assert set(re.findall(r"`(\w+_FILE)`", fix)) == at_start == {"NATS_JWT_FILE", "NOETL_INTERNAL_API_TOKEN_FILE"}


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "aaaa.!!!!.bbbb", jwt(sub="no end"), jwt(exp="soon")])
def test_what_has_no_end_has_none(token: str) -> None:
    assert credential_expiries(load_settings({"NOETL_INTERNAL_API_TOKEN": token})) == {}


@pytest.mark.parametrize("content", ["", "no pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_file_that_is_no_certificate_stops_nobody(content: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(content)
    assert credential_expiries(load_settings({"NATS_CA": str(file)})) == {}
    assert "NATS_CA" in CREDENTIALS
