"""Kind `postgres`."""
