"""What is read, rendered and redacted: JSON, YAML, templates, secrets."""
