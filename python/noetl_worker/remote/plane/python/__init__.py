"""Requests that the Python control plane expects, and its peculiarities."""
