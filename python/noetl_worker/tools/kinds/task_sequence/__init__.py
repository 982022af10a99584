"""Kind `task_sequence`."""
