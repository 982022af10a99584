"""What a command does: a folder a kind below kinds/."""
