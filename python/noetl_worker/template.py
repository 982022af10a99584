"""Public name of the templates (docs/library.md), in `noetl_worker.text.templates.template`."""

from noetl_worker.text.templates.template import PlainText, WithFallback, has_template, render, truthy

__all__ = ["PlainText", "WithFallback", "has_template", "render", "truthy"]
