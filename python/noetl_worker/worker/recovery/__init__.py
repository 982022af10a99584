"""Recovery of outcomes that an earlier worker left on disk, or that a plane has accepted and may have lost."""
