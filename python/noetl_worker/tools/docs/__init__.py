"""The kinds described to people and editors: descriptions, guides, JSON Schemas, docs/tools."""
