"""Cases of a playbook: what it is given, which steps something stands in for, and what is expected of it."""
