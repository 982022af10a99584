"""Outcomes that no plane has accepted yet, on disk: they outlive the process that made them."""
