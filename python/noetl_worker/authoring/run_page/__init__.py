"""The execution page: the events of an execution, on either plane, as one HTML file that makes no requests."""
