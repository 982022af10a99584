"""Events and commands in the form of each plane."""
