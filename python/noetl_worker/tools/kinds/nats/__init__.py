"""Tool kinds `nats` (operations on a NATS server) and `subscription`."""
