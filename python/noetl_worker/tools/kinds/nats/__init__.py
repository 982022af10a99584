"""Kinds `nats` and `subscription`."""
