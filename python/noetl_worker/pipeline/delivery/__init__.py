"""The handling of a delivered message: its bytes are decoded, its pool is checked, and JetStream is answered."""
