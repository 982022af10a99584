"""The bridge: a process that takes commands from a control plane without NATS, and puts them into JetStream."""
