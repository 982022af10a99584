"""What an operator sees of a worker: logs, metrics, probes, traces."""
