"""Python processes of commands: a warm template, its forks, and their messages."""
