"""The planes' routes: requests and answers."""
