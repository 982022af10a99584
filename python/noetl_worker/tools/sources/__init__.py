"""Where the code or SQL of a step is: inline, a file, an address."""
