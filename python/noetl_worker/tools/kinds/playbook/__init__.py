"""Kinds `playbook` and `workbook`: what a playbook runs of others, and of itself."""
