"""HTTP routes of the development plane: the handlers of requests, and their answers."""
