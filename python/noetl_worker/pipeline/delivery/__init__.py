"""A delivery: its bytes decoded, its pool checked, and JetStream answered."""
