"""The checks of `noetl-worker doctor`: they find what would keep a worker from working, and change nothing.

A check is a function that returns findings, in the module of the thing that it checks: `machine.py`, `nats.py`,
`plane.py`. `examination.py` calls them all.
"""

from noetl_worker.cli.doctor.examination import examine
from noetl_worker.cli.doctor.finding import Finding, State

__all__ = ["Finding", "State", "examine"]
