"""Expiry times of the certificates and tokens that the settings name. An alarm can then come before a certificate
expires."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from noetl_worker.errors import DocumentError
from noetl_worker.settings.settings import SETTINGS, Secret, Settings
from noetl_worker.text import json_text

CREDENTIALS: Final = (
    "NOETL_TLS_CA",
    "NOETL_TLS_CLIENT_CERT",
    "NATS_CA",
    "NATS_CERT",
    "NATS_CREDS",
    "NATS_JWT",
    "NOETL_INTERNAL_API_TOKEN",
)
_FIELDS: Final = {line.variable: line.field for line in SETTINGS}
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_EXPLICIT_0: Final = 0xA0
_UTC_TIME: Final = 0x17


def credential_expiries(settings: Settings) -> Mapping[str, float]:
    """Return the expiry of each credential, in epoch seconds. The key is the name of the credential's setting.

    A credential that is unset, cannot be read or never expires is left out.
    """
    given = {name: getattr(settings, _FIELDS[name]) for name in CREDENTIALS}
    texts = {
        name: value.reveal() if isinstance(value, Secret) else _read(value) for name, value in given.items() if value
    }
    found = {name: list(_ends(text)) for name, text in texts.items()}
    # A bundle of CAs also has old CAs, so its latest expiry counts. Of a chain, the earliest expiry counts.
    return {name: max(ends) if name.endswith("_CA") else min(ends) for name, ends in found.items() if ends}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # reported where the file is used
        return ""


def _ends(text: str) -> Iterator[float]:
    for pem in _PEM.findall(text):
        try:
            yield _not_after(ssl.PEM_cert_to_DER_cert(pem))
        except (ValueError, IndexError):  # reported where the file is used
            continue
    for word in text.split():
        parts = word.split(".")
        if len(parts) != 3:  # no JSON web token
            continue
        try:
            claims = json_text.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (DocumentError, binascii.Error, ValueError):
            continue
        if isinstance(claims, dict) and isinstance(end := claims.get("exp"), int | float):
            yield float(end)


def _not_after(der: bytes) -> float:
    """Return the expiry of an X.509 certificate in epoch seconds (RFC 5280, 4.1). The module `ssl` can read the expiry
    only from a connected peer's certificate."""
    _, tbs, _ = _value(_value(der)[1])
    tag, _, rest = _value(tbs)
    if tag == _EXPLICIT_0:  # the version
        rest = _value(rest)[2]
    for _ in range(2):  # after the serial number: signature, issuer
        rest = _value(rest)[2]
    validity = _value(rest)[1]
    tag, end, _ = _value(_value(validity)[2])
    text = end.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()


def _value(der: bytes) -> tuple[int, bytes, bytes]:
    """Return (tag, value, remaining bytes) of the first DER element."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return der[0], der[start : start + length], der[start + length :]
