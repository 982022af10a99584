"""Tools that commands run: the protocol that a tool implements (contract.py), the registry of the tools, and a folder
for each tool kind below kinds/."""
