"""HTTP as tools speak it: client, tokens, egress, answers."""
