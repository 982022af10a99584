"""Signatures of the Standard Webhooks specification, version v1: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

__all__ = ["key_of", "sign"]

_PREFIX: Final = "whsec_"


def key_of(secret: str) -> bytes:
    """The key of a secret: base64 behind `whsec_`, any other text as it is. ValueError for broken base64."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a secret that starts with whsec_ must go on in base64") from error


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Value of the header `webhook-signature`; `timestamp` in seconds since 1970."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
