"""The path of a command from bytes to ack: start at executor.py."""
