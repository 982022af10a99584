"""Which mistakes a playbook has, before anything runs: `noetl-worker check`. Needs no network and no plane."""
