"""Public import path of the functions that render templates (docs/library.md)."""

from noetl_worker.text.templates.template import PlainText, WithFallback, has_template, render, truthy

__all__ = ["PlainText", "WithFallback", "has_template", "render", "truthy"]
