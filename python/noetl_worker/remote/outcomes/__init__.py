"""How the end of a command is told to each plane, and what is asked where an answer was not clear."""
