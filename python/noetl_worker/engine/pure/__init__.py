"""The Python engine's files, of which redaction needs three; `lib.py` is the whole engine."""
