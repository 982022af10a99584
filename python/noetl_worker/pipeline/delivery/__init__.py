"""The handling of a delivered message: its pool is checked, duplicates are found, and JetStream is answered."""
