"""Bounded reads and atomic writes of files on the worker's machine, for the `artifact` tool."""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.file_roots import checked, open_regular

_ROOT: Final = "NOETL_ARTIFACT_ROOT"


def absolute(uri: str) -> str:
    """Return the absolute path that `uri` names: `file:///data/a` and `/data/a` give `/data/a`. Symbolic links stay
    unresolved.

    Raises:
        ConfigurationError: `uri` has a relative path, or names another host.
    """
    text = uri
    if uri.lower().startswith("file:"):
        url = urlsplit(uri)
        if url.netloc not in ("", "localhost"):
            raise ConfigurationError(
                f"{uri!r} names the host {url.netloc!r}; write file:///absolute/path", field="uri", tool="artifact"
            )
        text = unquote(url.path)
    if not text.startswith("/") or "\0" in text:
        raise ConfigurationError(
            f"{uri!r} is no absolute path; write file:///absolute/path", field="uri", tool="artifact"
        )
    return text


def artifact_path(uri: str, settings: ToolSettings) -> Path:
    """Return the path that `uri` names, with symbolic links resolved.

    Raises:
        ConfigurationError: `uri` has a relative path or names another host, or playbooks may not use the file.
    """
    path = checked("artifact", uri, Path(absolute(uri)), settings)
    root = settings.artifact_root
    if root and not path.is_relative_to(Path(root).resolve()):
        raise ConfigurationError(f"artifact: {uri!r} is outside {_ROOT}={root}: name a file in it")
    return path


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file. Raise ToolError of the kind not_found, auth, resource (more than `max_bytes`), or
    client_error (such as a directory or a device)."""
    try:
        with open_regular(path) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise _failure("read", path, error) from error
    if len(content) > max_bytes:
        raise ToolError(f"{path} has more than {max_bytes} bytes: raise 'max_bytes'", kind="resource")
    return content


def write_file(path: Path, content: bytes, stopped: threading.Event) -> None:
    """Write a temporary file and rename this file to `path`. A reader of `path` then sees either the old content or the
    new content, complete.

    If `stopped` is set before the rename, the temporary file is removed. The caller has given up waiting by then, and
    may have written newer content to `path`.

    Raises:
        ToolError: the file cannot be written; the kind is auth, not_found or client_error.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if not stopped.is_set():
                beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise _failure("written", path, error) from error


def _failure(verb: str, path: Path, error: OSError) -> ToolError:
    text = f"{path} cannot be {verb}: {error.strerror or error}; name a file that can be {verb}"
    kind = "not_found" if isinstance(error, FileNotFoundError) else "client_error"
    return ToolError(text, kind="auth" if isinstance(error, PermissionError) else kind, code=type(error).__name__)
