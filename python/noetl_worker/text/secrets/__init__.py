"""The secrets of a command, and their removal from everything that leaves the worker."""
