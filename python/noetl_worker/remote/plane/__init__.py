"""What the worker says to a control plane, and how often it may."""
