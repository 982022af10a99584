"""Parsing and checks of a `script` field, which holds the code or SQL of a step, or an address. Nothing is fetched
here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.deadline import seconds

MAX_CODE_BYTES: Final = 4 * 1024 * 1024
BUCKETS: Final = ("gs", "s3")
_TIMEOUT_S: Final = 30.0
_TYPES: Final = ("inline", "file", "http", "gcs", "s3")
_SCHEMES: Final = ("", "file", "http", "https", "gs", "s3")


@dataclass(frozen=True, slots=True)
class ScriptAddress:
    """A parsed `script` field: the code itself (`code`), or the address of the code (`uri`) and details of the
    request."""

    code: str | None = None
    uri: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def check_script(script: str | Mapping[str, Any], kind: str = "python") -> str | None:
    """Check a `script` field without fetching the script, for the `__post_init__` of a config model.

    Returns:
        The code if the field contains code, or None if the code must be fetched.

    Raises:
        ConfigurationError: the field contains neither code nor a usable address.
    """
    place = parse_address(script, kind)
    if place.code is not None:
        return place.code
    parts = urlsplit(place.uri)
    if parts.scheme not in _SCHEMES:
        text = f"script address {place.uri!r}: a path, file://, http(s)://, gs:// or s3:// is needed"
        raise ConfigurationError(text, field="script", tool=kind)
    if parts.scheme in BUCKETS and not (parts.netloc and parts.path.lstrip("/")):
        text = f"script address {place.uri!r}: {parts.scheme}://<bucket>/<object> is needed"
        raise ConfigurationError(text, field="script", tool=kind)
    if parts.scheme in ("http", "https", "gs"):
        from noetl_worker.tools.http.auth import check_auth  # imported late: most scripts need no httpx

        check_auth(place.details.get("auth"))
    if parts.scheme in ("http", "https", "gs", "s3"):
        limit_s(place.details, kind)
        script_headers(place.details, kind)
    return None


def parse_address(script: str | Mapping[str, Any], tool: str) -> ScriptAddress:
    """Return the parsed `script` field. Raises ConfigurationError if the field has neither code nor an address."""
    if isinstance(script, str):
        return ScriptAddress(script) if _is_source(script) else ScriptAddress(uri=script.strip())
    source = script.get("source")
    details: Mapping[str, Any] = source if isinstance(source, Mapping) else {}
    kind = details.get("type")
    if kind is not None and kind not in _TYPES:
        raise ConfigurationError(
            f"script.source.type {kind!r} is none of {', '.join(_TYPES)}", field="script.source.type", tool=tool
        )
    if isinstance(details.get("code"), str):
        return ScriptAddress(str(details["code"]))
    uri = script.get("uri") or details.get("uri") or (source if isinstance(source, str) else None)
    endpoint = details.get("endpoint")
    if kind == "http" and isinstance(endpoint, str):
        uri = _below(endpoint, uri) if isinstance(uri, str) and "://" not in uri else uri or endpoint
    if not isinstance(uri, str) or kind == "inline":
        raise ConfigurationError("'script' needs 'uri', or 'source' with 'code'", field="script", tool=tool)
    auth = details.get("auth") or details.get("credential")
    return ScriptAddress(uri=uri.strip(), details={**details, "auth": auth})


def _below(endpoint: str, path: str) -> str:
    """Return the address of a script at an HTTP endpoint. If the endpoint ends in `/`, append the path. Otherwise
    ignore the path, as NoETL's Python worker does."""
    return f"{endpoint}{path.lstrip('/')}" if endpoint.endswith("/") else endpoint


def limit_s(details: Mapping[str, Any], kind: str) -> float:
    """Return the maximum seconds for fetching a script: the field `timeout`, or 30."""
    given = details.get("timeout")
    return _TIMEOUT_S if given is None else seconds(given, "script.source.timeout", kind)


def script_headers(details: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return the request headers for fetching a script, from the field `headers`."""
    given = details.get("headers")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"script.source.headers must be an object, not {type(given).__name__}",
            field="script.source.headers",
            tool=kind,
        )
    return {str(name): str(value) for name, value in given.items() if value is not None}


def _is_source(script: str) -> bool:
    """Return True if the text is code, and False if it is a path or an address. Text with several lines is always
    code."""
    text = script.strip()
    return "\n" in text or not (
        text.startswith(("file:", "/", "./", "../")) or text.endswith((".py", ".sql")) or "://" in text
    )


def decoded(data: bytes, name: str, kind: str) -> str:
    """Return the bytes of a script as text. Raises ConfigurationError if they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{kind}: script {name!r} is not UTF-8 text: {error}") from error
