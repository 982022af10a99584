"""Tool kind `noop`: does nothing."""
