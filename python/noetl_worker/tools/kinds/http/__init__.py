"""Kind `http`."""
