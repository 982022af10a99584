"""Tool kind `snowflake`: runs SQL in Snowflake."""
