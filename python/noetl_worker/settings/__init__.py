"""The settings of a worker, read from flags, environment and files into one frozen value."""
