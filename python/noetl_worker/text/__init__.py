"""JSON and YAML, templates, and the redaction of secrets."""
