"""Kind `shell`."""
