"""Tools that commands run: the contract, the registry, and a folder for each kind below kinds/."""
