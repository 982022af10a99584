"""The rules of `noetl-worker check`, a module for each group of codes."""
