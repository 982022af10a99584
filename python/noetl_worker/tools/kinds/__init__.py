"""The kinds: one folder for each, with its page `page.md`."""
