"""The Python engine. `lib.py` exports all its calls. Code that only redacts imports single files of this package
instead."""
