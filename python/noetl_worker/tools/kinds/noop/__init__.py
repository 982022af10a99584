"""Kind `noop`."""
