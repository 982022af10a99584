"""The kinds: a folder each, with its page `page.md`."""
