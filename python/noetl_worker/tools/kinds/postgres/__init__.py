"""Tool kind `postgres`: runs SQL in Postgres."""
