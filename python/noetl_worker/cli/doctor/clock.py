"""The comparison of this machine's clock with another clock."""

from __future__ import annotations

from typing import Final

from noetl_worker.cli.doctor.finding import Finding, fine, warning, wrong

_MOST_S: Final = 5.0
"""Largest difference of two clocks, in seconds, that counts as fine."""
_FAR_S: Final = 60.0
"""Largest difference of two clocks, in seconds, that is only a warning. A larger difference is an error, since it makes
the ages of messages, certificates and event ids wrong."""
WANTED: Final = f"within {_MOST_S:g} s"


def check_skew(check: str, theirs: float, ours: float, uncertain_s: float) -> Finding:
    """Rate the difference between this machine's clock and another clock. Return a finding about it.

    Args:
        check: name of the check.
        theirs: time of the other clock, in seconds since 1970.
        ours: time of this machine's clock, in seconds since 1970.
        uncertain_s: possible measuring error in seconds, subtracted before the difference is rated.
    """
    ahead_s = ours - theirs
    off_s = max(0.0, abs(ahead_s) - uncertain_s)
    found = f"{abs(ahead_s):.1f} s {'ahead' if ahead_s > 0 else 'behind'} (known to {uncertain_s:.1f} s)"
    if off_s <= _MOST_S:
        return fine(check, found, WANTED)
    fix = "let both machines keep their time (chronyd, systemd-timesyncd)"
    return wrong(check, found, WANTED, fix) if off_s > _FAR_S else warning(check, found, WANTED, fix)
