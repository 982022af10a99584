"""What is said to NATS and to a control plane."""
