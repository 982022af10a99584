"""The worker's life: its loop, processes, recovery."""
