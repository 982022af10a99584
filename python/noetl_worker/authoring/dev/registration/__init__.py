"""The playbooks that each control plane takes."""
