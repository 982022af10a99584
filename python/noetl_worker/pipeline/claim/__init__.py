"""The claim of a command, and the search of the claim's answer for templates, references and secrets."""
