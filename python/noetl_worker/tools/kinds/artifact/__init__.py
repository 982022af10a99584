"""Kinds `artifact` and `result_fetch`: content by reference, from stores, files and HTTP."""
