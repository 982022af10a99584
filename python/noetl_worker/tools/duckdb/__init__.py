"""Kinds `duckdb` and `ducklake`."""
