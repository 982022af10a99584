"""The execution page: an HTML file that shows an execution of either plane, and that needs no network."""
