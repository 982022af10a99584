"""The checks that find what keeps a worker from working on this machine: `noetl-worker doctor`.

One function a check, in the module of what it looks at: `machine.py`, `outbox.py`, `nats.py`, `permissions.py`,
`plane.py`, `tls.py`, `variables.py`. Each gives findings, which are data. Nothing is changed anywhere.
"""

from noetl_worker.cli.doctor.examination import examine
from noetl_worker.cli.doctor.finding import Finding, State

__all__ = ["Finding", "State", "examine"]
