"""What the SQL kinds share: the text, its source, its statements, the form of its values."""
