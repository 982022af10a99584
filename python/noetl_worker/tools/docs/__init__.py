"""The kinds described to people and editors: descriptions, pages, JSON Schemas, docs/tools."""
