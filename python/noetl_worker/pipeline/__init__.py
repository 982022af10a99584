"""The path of one command from the message's bytes to the ack. Start at executor.py."""
