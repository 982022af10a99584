"""The stages of a claimed command. The module `claimed_command` calls the other modules."""
