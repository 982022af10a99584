"""Output of the command line: tables for a terminal, JSON for a pipe."""
