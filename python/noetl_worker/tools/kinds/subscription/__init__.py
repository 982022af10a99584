"""Tool kind `subscription`: polls a durable consumer."""
