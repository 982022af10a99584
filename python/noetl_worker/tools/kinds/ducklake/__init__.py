"""Kind `ducklake`."""
