"""Tool kind `ducklake`: runs SQL in a DuckLake catalog."""
