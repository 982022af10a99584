"""HTTP for tools: clients, access tokens, the check of destination addresses, and the reading of answers."""
