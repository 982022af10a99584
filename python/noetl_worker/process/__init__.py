"""The worker's own process: its event loop, threads, memory and environment."""
