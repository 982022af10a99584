"""Kind `rhai`."""
