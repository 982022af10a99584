"""Credentials of a command, and how their values are kept out of all that leaves."""
