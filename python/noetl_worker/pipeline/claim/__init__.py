"""What a granted claim is, and who may run its command."""
