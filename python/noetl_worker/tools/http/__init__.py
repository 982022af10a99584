"""Kind `http`, and what every kind that speaks HTTP takes from it: client, tokens, egress, answers."""
