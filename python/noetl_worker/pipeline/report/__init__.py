"""Reporting to the plane: makes a result fit into events, and sends the terminal events."""
