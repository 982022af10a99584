"""Python processes of commands: a warm template process, its forks, and the messages between them and the worker."""
