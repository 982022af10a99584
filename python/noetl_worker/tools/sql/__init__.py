"""The parts that SQL kinds share: the text, its source, its statements, the form of its values."""
