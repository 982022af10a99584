"""The rules of `check`, a module for each group of codes."""
