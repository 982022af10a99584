"""Kind `secrets`."""
