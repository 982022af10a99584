"""Checks of the TLS certificates of NATS and the control plane: whether we accept them, and when they expire."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from noetl_worker.cli.doctor.finding import Finding, fine, unknown, warning, wrong
from noetl_worker.errors import DocumentError
from noetl_worker.remote.transport.credential_ends import credential_expiries
from noetl_worker.remote.transport.tls import TlsFiles
from noetl_worker.settings.settings import Settings
from noetl_worker.settings.values import TlsPaths
from noetl_worker.text import json_text

_TIMEOUT_S: Final = 5.0
_SOON_S: Final = 14 * 86400
_WANTED: Final = "a chain that is valid for two weeks and more"
_TWO_WEEKS: Final = "two weeks and more"
_EXPIRED: Final = 10
_HOSTNAME: Final = 62
"""OpenSSL's verify code for a wrong host name. The code 10 means an expired certificate, 64 a wrong IP address."""


def examine_own_files(settings: Settings) -> list[Finding]:
    """Return a finding about the expiry of each of the worker's own certificates, tokens and trusted CAs."""
    return [
        _rate_end(f"end of {name}", f"until {_date(ends_at)}", ends_at, _TWO_WEEKS)
        for name, ends_at in credential_expiries(settings).items()
    ]


async def examine_nats(settings: Settings) -> list[Finding]:
    """Return a finding about the TLS certificate of each server in NATS_URL that offers TLS or must offer it."""
    findings = []
    for server in settings.nats_servers:
        parts = urlsplit(server)
        if parts.scheme in ("ws", "wss") or not parts.hostname:
            continue
        at = (parts.hostname, parts.port or 4222)
        must = parts.scheme == "tls" or bool(settings.nats_tls.ca)
        findings.append(
            await _check_certificate(f"TLS of NATS {at[0]}:{at[1]}", at, settings.nats_tls, _NATS, must=must)
        )
    return [finding for finding in findings if finding is not None]


async def examine_plane(settings: Settings) -> list[Finding]:
    parts = urlsplit(settings.server_url)
    if parts.scheme != "https" or not parts.hostname:
        return []
    at = (parts.hostname, parts.port or 443)
    found = await _check_certificate(f"TLS of the plane {at[0]}:{at[1]}", at, settings.plane_tls, _HTTP, must=True)
    return [found] if found is not None else []


@dataclass(frozen=True, slots=True)
class _Protocol:
    """The parts of the certificate check that differ between the protocols NATS and HTTP."""

    begin: Callable[[socket.socket], bool]
    """Function that exchanges the protocol's bytes before the TLS handshake. Returns True if the server offers TLS."""
    question: bytes
    """Request that a server answers without a login. An answer shows that the server accepts our certificate."""
    variables: tuple[str, str, str]
    """Names of the settings for the CA, the client certificate and the key."""


def _begin_nats(connection: socket.socket) -> bool:
    """Read the greeting of a NATS server. Return True if the server speaks TLS."""
    with connection.makefile("rb", buffering=0) as stream:  # unbuffered, so that no byte of the handshake is read
        greeting = stream.readline(65536)
    try:
        info = json_text.loads(greeting.removeprefix(b"INFO "))
    except DocumentError:
        return False
    return isinstance(info, dict) and bool(info.get("tls_required") or info.get("tls_available"))


_NATS: Final = _Protocol(_begin_nats, b"PING\r\n", ("NATS_CA", "NATS_CERT", "NATS_KEY"))
_HTTP: Final = _Protocol(
    lambda _: True,
    b"HEAD /api/health HTTP/1.0\r\n\r\n",
    ("NOETL_TLS_CA", "NOETL_TLS_CLIENT_CERT", "NOETL_TLS_CLIENT_KEY"),
)


async def _check_certificate(
    check: str, at: tuple[str, int], paths: TlsPaths, speaks: _Protocol, *, must: bool
) -> Finding | None:
    """Check that a server's TLS certificate is accepted, and when it expires.

    Args:
        check: name of the check.
        at: host and port of the server.
        paths: our own TLS files.
        speaks: how to read the certificate over the server's protocol.
        must: True if the settings require TLS.

    Returns:
        The finding; None if the settings do not require TLS, and the server offers no TLS or does not answer.
    """
    ca, cert, key = speaks.variables
    try:
        context = TlsFiles(paths).context()
    except OSError as error:
        fix = f"{ca}, {cert} and {key}: PEM files that belong together"
        return wrong(check, f"a file of ours cannot be used: {error}", _WANTED, fix)
    try:
        certificate = await asyncio.to_thread(_fetch_certificate, at, context, speaks)
    except ssl.SSLCertVerificationError as error:
        return _refused(check, at, ca, error)
    except ssl.SSLError as error:
        fix = f"set {cert} and {key} if the server wants a client certificate; renew ours if it has expired"
        return wrong(check, f"the handshake fails: {error}", _WANTED, fix)
    except OSError as error:
        return unknown(check, f"no connection: {error}", _WANTED) if must else None
    if certificate is None:
        fix = "give the server a certificate, or say nats:// in NATS_URL"
        return wrong(check, "the server offers no TLS", _WANTED, fix) if must else None
    found = f"{_name(certificate, 'subject')}, signed by {_name(certificate, 'issuer')}"
    ends_at = ssl.cert_time_to_seconds(str(certificate.get("notAfter")))
    return _rate_end(check, f"{found}, until {_date(ends_at)}", ends_at, _WANTED)


def _fetch_certificate(at: tuple[str, int], context: ssl.SSLContext, speaks: _Protocol) -> dict[str, Any] | None:
    with socket.create_connection(at, _TIMEOUT_S) as plain:
        if not speaks.begin(plain):
            return None
        with context.wrap_socket(plain, server_hostname=at[0]) as wrapped:
            certificate = wrapped.getpeercert()
            wrapped.sendall(speaks.question)
            if not wrapped.recv(1):  # a TLS 1.3 server refuses our certificate only now
                raise ssl.SSLError("the server closes the connection at once; it may refuse our certificate")
            return certificate


def _refused(check: str, at: tuple[str, int], ca: str, error: ssl.SSLCertVerificationError) -> Finding:
    if error.verify_code == _EXPIRED:
        fix = f"renew the certificate of {at[0]}, or of the CA that signed it"
    elif error.verify_code in (_HOSTNAME, 64):
        fix = f"use an address that is in the certificate, or have {at[0]} put into the certificate"
    else:
        fix = f"set {ca} to the PEM file of the CA that signed the certificate"
    return wrong(check, f"its certificate is not accepted: {error.verify_message}", _WANTED, fix)


def _rate_end(check: str, found: str, ends_at: float, wanted: str) -> Finding:
    left_s = ends_at - time.time()
    if left_s > _SOON_S:
        return fine(check, found, wanted)
    if left_s > 0:
        return warning(check, f"{found}: {left_s / 86400:.0f} days left", wanted, "renew it now")
    return wrong(check, f"expired: {found}", wanted, "renew it now")


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _name(certificate: dict[str, Any], of: str) -> str:
    parts = {name: value for pairs in certificate.get(of, ()) for name, value in pairs}
    return str(parts.get("commonName") or parts.get("organizationName") or "no name")
