"""One command: claimed, hydrated, run as one tool, its cases evaluated. `claimed_command` is the line through it."""
