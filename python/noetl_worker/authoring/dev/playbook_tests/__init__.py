"""Tests of a playbook: given inputs, stand-ins for steps, and expected results."""
