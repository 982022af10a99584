"""The tools of a worker: the contract, the registry, and a folder for each kind below `kinds/`."""
