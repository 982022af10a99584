"""Kind `snowflake`."""
