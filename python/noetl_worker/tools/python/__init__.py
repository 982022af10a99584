"""Python processes of commands: a warm template, its forks, and what they exchange."""
