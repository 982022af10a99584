"""The checks of a playbook by each control plane, at registration and before an execution."""
