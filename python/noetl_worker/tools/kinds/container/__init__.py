"""Kinds `container` and `script`: both run a program as a Job in a Kubernetes cluster."""
