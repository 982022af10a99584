"""One command, from its bytes to the ack: start at executor.py."""
