"""The tool kinds, each in a folder with its guide `page.md`."""
