"""The checks of `noetl-worker doctor`: they find what would keep a worker from working, and change nothing.

Each check is a function that returns findings. `machine.py` checks the machine, `nats.py` NATS, and `plane.py` the
control plane. `examination.py` calls all checks.
"""

from noetl_worker.cli.doctor.examination import examine
from noetl_worker.cli.doctor.finding import Finding, State

__all__ = ["Finding", "State", "examine"]
