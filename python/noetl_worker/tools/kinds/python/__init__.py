"""Kind `python`."""
