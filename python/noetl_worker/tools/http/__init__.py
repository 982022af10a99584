"""HTTP for tools: client, tokens, egress, answers."""
