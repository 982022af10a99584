"""Documentation of the tool kinds for people and editors: descriptions, JSON Schemas, and the pages of docs/tools."""
