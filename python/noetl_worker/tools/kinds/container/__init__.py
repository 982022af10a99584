"""Kinds `container` and `script`: Jobs in a Kubernetes cluster."""
