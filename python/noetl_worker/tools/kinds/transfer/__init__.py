"""Tool kind `transfer`: moves rows from a source into a table of a target, in one transaction."""
