"""A run as one page: what the events of an execution say, on either plane, as one HTML file that asks nobody."""
