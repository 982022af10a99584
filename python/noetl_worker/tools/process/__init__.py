"""Programs of commands: started, confined, bounded, and ended with their command."""
