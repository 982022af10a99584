"""Kind `workbook`: runs a tool that the playbook defines once, for several steps."""
