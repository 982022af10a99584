"""Tool kind `webhook` for noetl-worker."""

from noetl_worker_webhook.webhook import WebhookConfig, WebhookTool

__all__ = ["WebhookConfig", "WebhookTool"]
