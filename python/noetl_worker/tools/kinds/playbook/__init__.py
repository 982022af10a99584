"""Kinds `playbook` and `workbook`: calls of other playbooks, and of parts of the same one."""
