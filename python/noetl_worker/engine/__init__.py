"""The engine, in Rust and in Python: notifications, cases, redaction."""
