"""The Python engine. `lib.py` has all its calls; redaction imports only the files that it needs."""
