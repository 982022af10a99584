"""The claim of a command, and the marks of its text."""
