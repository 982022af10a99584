"""Kind `transfer`: rows from a source into a target, in one transaction."""
