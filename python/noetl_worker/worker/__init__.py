"""The worker's life: start, pulling, stop, several processes, and recovery."""
