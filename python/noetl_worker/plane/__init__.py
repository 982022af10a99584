"""What the worker says to a control plane, and how it travels.

`on_loop` is the HTTP transport on the event loop; `h11_parser` is its parser where httptools is not installed.
"""
