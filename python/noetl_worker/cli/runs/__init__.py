"""What is typed about the runs of playbooks."""
