"""What is looked for, a module for each group of codes."""
