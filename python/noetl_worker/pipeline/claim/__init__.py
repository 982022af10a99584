"""The claim of a command, and the search of the claim's text for templates, references and secrets."""
