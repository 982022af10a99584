"""Kind `script`."""
