"""A claimed command: hydrated, run as one tool, its cases evaluated. `claimed_command` calls the rest."""
