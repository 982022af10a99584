"""The tools for playbook authors on a laptop: dev, check, the execution page."""
