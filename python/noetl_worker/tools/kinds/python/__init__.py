"""Tool kind `python`: runs Python code."""
