"""Use of JetStream by the worker: connection, stream of commands, durable consumer, pull loop, and acknowledgement of
deliveries."""
