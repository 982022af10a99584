"""Reporting to the plane: the result within its budget, the terminal events, and their sending."""
