"""The head of a playbook, for texts that leave it out."""

from typing import Final

HEAD: Final = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: example, path: example}\n"
