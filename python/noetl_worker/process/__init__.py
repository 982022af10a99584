"""This process: its loop, threads, environment."""
