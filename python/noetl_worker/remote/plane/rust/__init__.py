"""Requests that the Rust control plane expects, and its peculiarities."""
