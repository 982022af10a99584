"""The tools for playbook authors on a laptop: `noetl-worker dev`, `noetl-worker check`, the page of an execution."""
