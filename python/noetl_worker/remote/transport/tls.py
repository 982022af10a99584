"""TLS contexts for the control plane and for NATS, from the current CA and client certificate files."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from noetl_worker.settings.values import TlsPaths


class TlsFiles:
    """TLS context made of the certificate files that `Settings.plane_tls` or `Settings.nats_tls` names."""

    def __init__(self, paths: TlsPaths) -> None:
        self._paths: Final = paths
        self._read_at: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection. Changed files, such as a renewed certificate, are read again.

        Raises:
            OSError, ssl.SSLError: a file cannot be read, or has the wrong content.
        """
        paths = self._paths
        changed_at = tuple(Path(path).stat().st_mtime_ns for path in paths if path)
        if self._context is None or changed_at != self._read_at:
            context = ssl.create_default_context(cafile=paths.ca or None)
            if paths.cert:
                context.load_cert_chain(paths.cert, paths.key)
            self._context, self._read_at = context, changed_at
        return self._context
