"""Kind `subscription`."""
