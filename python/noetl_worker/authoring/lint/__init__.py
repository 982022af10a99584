"""The mistakes of a playbook, found before anything runs: `noetl-worker check`. Needs no network and no plane."""
