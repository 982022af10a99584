"""The decisions of a plane: the steps of a playbook, which step follows, what is issued and reissued."""
