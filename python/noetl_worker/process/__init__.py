"""This process: its event loop, threads, memory, environment."""
