"""JetStream as the worker uses it: the connection, the stream and its durable, the pull loop, the four answers."""
