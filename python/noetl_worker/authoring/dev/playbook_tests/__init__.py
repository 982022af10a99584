"""`noetl-worker test`: tests of a playbook with given inputs, stand-ins for steps, and expected results."""
