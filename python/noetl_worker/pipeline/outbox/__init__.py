"""Outcomes that no plane has accepted yet, on disk, where they outlive the process that made them."""
