"""The process itself: its event loop, threads, memory, environment."""
