"""The checks with which each control plane accepts or refuses a playbook."""
