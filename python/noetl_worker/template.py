"""Templates, by the name that docs/library.md gives it: `noetl_worker.text.templates.template`."""

from noetl_worker.text.templates.template import PlainText, WithFallback, has_template, render, truthy

__all__ = ["PlainText", "WithFallback", "has_template", "render", "truthy"]
