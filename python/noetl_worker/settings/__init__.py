"""Flags, environment, files and NATS contexts -> one frozen `Settings`, checked before anything starts."""
