"""Tool kind `script`: runs Python scripts as Kubernetes Jobs."""
