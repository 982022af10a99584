"""Kind `mcp`."""
