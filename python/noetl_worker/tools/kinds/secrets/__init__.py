"""Tool kind `secrets`: reads secrets for later tasks."""
