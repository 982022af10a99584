"""The stages of a claimed command. Start reading at `claimed_command`, which calls the other modules."""
