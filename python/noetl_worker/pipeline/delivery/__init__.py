"""One delivery of a notification: what its bytes are, whether it runs here, what JetStream is answered."""
