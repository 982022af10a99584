"""Tool kind `result_fetch`: fetches stored results."""
