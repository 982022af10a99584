"""HTTP requests to a control plane: the `Transport` protocol, HTTP/1.1 on the event loop, TLS."""
