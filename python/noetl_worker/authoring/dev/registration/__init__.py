"""Which playbooks each control plane takes."""
