"""What the Python control plane wants to hear, and what it does that no other does."""
