"""TLS contexts for the control plane and for NATS: CA and client certificate, as their files are now."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from noetl_worker.settings.values import TlsPaths


class TlsFiles:
    """What `Settings.plane_tls` or `Settings.nats_tls` names, as a context."""

    def __init__(self, paths: TlsPaths) -> None:
        self._paths: Final = paths
        self._read_at: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context for the next connection; read again when one of the files has changed (a renewed certificate).

        Raises:
            OSError, ssl.SSLError: a file cannot be read, or is not what its setting says.
        """
        paths = self._paths
        changed_at = tuple(Path(path).stat().st_mtime_ns for path in paths if path)
        if self._context is None or changed_at != self._read_at:
            context = ssl.create_default_context(cafile=paths.ca or None)
            if paths.cert:
                context.load_cert_chain(paths.cert, paths.key)
            self._context, self._read_at = context, changed_at
        return self._context
