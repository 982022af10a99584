"""Kinds `playbook` and `workbook`: calls of other playbooks, and of entries in the playbook's own `workbook`."""
