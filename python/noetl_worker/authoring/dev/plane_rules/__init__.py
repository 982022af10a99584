"""The rules of each plane for results, templates, commands and notifications."""
