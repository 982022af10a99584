"""The worker as a process: its event loop, its open files, its environment, and what a parent hands down."""
