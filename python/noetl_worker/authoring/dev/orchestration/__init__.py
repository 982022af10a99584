"""What a plane decides: a playbook's steps, which of them follows, what is issued and issued again."""
