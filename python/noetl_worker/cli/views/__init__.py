"""What the commands show: tables for a terminal, JSON for a pipe."""
