"""What the Rust control plane wants to hear, and what it does that no other does."""
