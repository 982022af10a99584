"""The Python engine: functions that decode notifications, evaluate cases and redact secrets; `lib.py` exports them.

The Rust engine has the same functions. Code that only redacts imports single files of this package.
"""
