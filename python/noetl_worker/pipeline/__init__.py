"""The path of a command from the message's bytes to its ack. Start reading at executor.py."""
