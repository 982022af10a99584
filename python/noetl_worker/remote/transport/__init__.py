"""One HTTP request to a control plane: the seam, HTTP/1.1 on the event loop, TLS."""
