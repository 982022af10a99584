"""Tool kind `duckdb`: runs SQL in an embedded DuckDB. Kinds `ducklake` and `transfer` use its DuckDB processes too."""
