"""Finished runs of `dev`: their storage, their content, and queries on them."""
