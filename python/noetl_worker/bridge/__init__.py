"""The bridge: takes the commands that a control plane without NATS sends out, and puts them into JetStream."""
