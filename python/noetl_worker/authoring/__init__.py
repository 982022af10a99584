"""What an author has on a laptop: dev, check, the page."""
