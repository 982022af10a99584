"""The life of a worker: its start, its pull loop, its stop, several worker processes, and recovery of outcomes."""
