"""The bridge: takes the commands that a control plane without NATS sends, and puts them into JetStream."""
