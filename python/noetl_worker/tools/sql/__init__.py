"""Code that the SQL kinds share: reading and splitting a step's SQL, and converting results to JSON."""
