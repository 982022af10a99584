"""Connections and requests to NATS and to a control plane."""
