"""The Python engine. `lib.py` exports its functions. Code that only redacts imports single files of this package."""
