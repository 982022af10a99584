"""The CLI command `run --processes N`: one process that starts N workers, and one port for the probes of all."""
