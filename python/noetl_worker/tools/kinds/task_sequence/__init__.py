"""Tool kind `task_sequence`: runs a list of tasks."""
