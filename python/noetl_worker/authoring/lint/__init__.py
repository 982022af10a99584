"""`noetl-worker check`, which finds mistakes in a playbook before the playbook runs, without a network or a plane."""
