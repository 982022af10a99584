"""Tool kind `shell`: runs shell commands."""
