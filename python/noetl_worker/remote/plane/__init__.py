"""Requests to a control plane, and limits on their number."""
