"""The place of a step's code or SQL, checked as far as that is possible without reading it."""

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
    """The place of a script: the code itself, or an address."""

    code: str | None = None
    uri: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def check_script(script: str | Mapping[str, Any], kind: str = "python") -> str | None:
    """Check as much of a `script` field as is possible without fetching it, for a config model's `__post_init__`.

    Returns:
        The code if the field contains it, None if it has to be fetched.

    Raises:
        ConfigurationError: the field names no possible place.
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
        from noetl_worker.tools.http.auth import check_auth  # most scripts are no address: httpx stays out

        check_auth(place.details.get("auth"))
    if parts.scheme in ("http", "https", "gs", "s3"):
        limit_s(place.details, kind)
        script_headers(place.details, kind)
    return None


def parse_address(script: str | Mapping[str, Any], tool: str) -> ScriptAddress:
    """Return the place of a script. Raises ConfigurationError for an object that names none."""
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
    """Return the endpoint as the address, as the Python worker does; an endpoint ending in `/` is a directory."""
    return f"{endpoint}{path.lstrip('/')}" if endpoint.endswith("/") else endpoint


def limit_s(details: Mapping[str, Any], kind: str) -> float:
    """Return the seconds that a script may take to arrive."""
    given = details.get("timeout")
    return _TIMEOUT_S if given is None else seconds(given, "script.source.timeout", kind)


def script_headers(details: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return the headers to ask for a script with."""
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
    """Return True for source text, not a file's name: it has several lines, or does not look like a path."""
    text = script.strip()
    return "\n" in text or not (
        text.startswith(("file:", "/", "./", "../")) or text.endswith((".py", ".sql")) or "://" in text
    )


def decoded(data: bytes, name: str, kind: str) -> str:
    """Return the text of a script. Raises ConfigurationError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{kind}: script {name!r} is not UTF-8 text: {error}") from error
