"""Reporting to the plane: the result cut to its budget, the terminal events, and their sending until accepted."""
