"""Tool kind `http`: sends HTTP requests."""
