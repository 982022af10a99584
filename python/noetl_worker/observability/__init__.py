"""Logs, metrics, probes, traces."""
