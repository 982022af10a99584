"""Flags, environment and files as one frozen value."""
