"""Kinds `artifact` and `result_fetch`: read or write content by its address (result store, file or HTTP)."""
