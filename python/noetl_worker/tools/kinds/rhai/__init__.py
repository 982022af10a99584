"""Tool kind `rhai`: runs Rhai scripts."""
