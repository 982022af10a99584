"""The handling of a delivered message: its worker pool is checked, duplicates are found, and JetStream is answered."""
