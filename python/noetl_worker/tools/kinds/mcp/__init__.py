"""Tool kind `mcp`: sends requests to Model Context Protocol servers."""
