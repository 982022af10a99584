"""The reader of NATS contexts (ADR-21), which are connections that the NATS CLI has saved."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from noetl_worker.errors import SettingsError

_VARIABLE: Final = "NATS_CONTEXT"
_LOGIN: Final = {
    "user": "NATS_USER",
    "password": "NATS_PASSWORD",
    "token": "NATS_TOKEN",
    "creds": "NATS_CREDS",
    "nkey": "NATS_NKEY",
    "user_jwt": "NATS_JWT",
}
_OTHER: Final = {"url": "NATS_URL", "ca": "NATS_CA", "cert": "NATS_CERT", "key": "NATS_KEY"}
_PATHS: Final = frozenset({"creds", "nkey", "ca", "cert", "key"})
_NOT_USED: Final = (
    *("nsc", "jetstream_domain", "jetstream_api_prefix", "jetstream_event_prefix", "inbox_prefix", "tls_first"),
    *("socks_proxy", "windows_cert_store", "windows_cert_match", "windows_cert_match_by"),
)
"""Keys of a context file that change the connection but that a worker does not support. A context with such a key stops
the start."""


def context_texts(name: str, environment: Mapping[str, str], given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the path of a NATS context's file, and the settings in this file that no other source sets.

    The settings come as a dict of texts by variable name.

    Args:
        name: name of the context, or path of its file.
        environment: environment variables, from which the directory of the contexts is found.
        given: settings from all other sources (text by variable name). If they have a login, the context's login is
            not used.

    Raises:
        SettingsError: there is no such context, or a worker does not support one of its keys.
    """
    path = _find_path(name, environment)
    context = _read(path, name)
    refused = [key for key in _NOT_USED if context.get(key)]
    if refused:
        raise SettingsError(_VARIABLE, name, f"a context without {', '.join(refused)}, which a worker does not support")
    has_login = any(variable in given for variable in (*_LOGIN.values(), "NATS_SEED"))
    has_login = has_login or "@" in given.get("NATS_URL", "").partition(",")[0]
    used = _OTHER if has_login else {**_OTHER, **_LOGIN}
    texts = {key: str(context[key]) for key in used if context.get(key) and used[key] not in given}
    return str(path), {used[key]: _expanded(text) if key in _PATHS else text for key, text in texts.items()}


def _find_path(name: str, environment: Mapping[str, str]) -> Path:
    if "/" in name:
        return Path(_expanded(name))
    base = environment.get("XDG_CONFIG_HOME") or _expanded(f"{environment.get('HOME') or '~'}/.config")
    return Path(base, "nats", "context", f"{name}.json")


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises if the user has no home


def _read(path: Path, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file is not JSON"
        allowed = f"the name of a context of the NATS CLI, or the path of its file ({path}: {reason})"
        raise SettingsError(_VARIABLE, name, allowed) from None
    if not isinstance(found, dict):
        raise SettingsError(
            _VARIABLE, name, f"{path} holds JSON that is not an object: name a context file of the NATS CLI"
        )
    return found
