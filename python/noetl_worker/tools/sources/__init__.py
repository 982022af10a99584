"""Reading the code or SQL of a step, which is inline, in a file, or at an address."""
