"""The worker as a process: its event loop, threads, open files, environment, and what a parent hands down."""
