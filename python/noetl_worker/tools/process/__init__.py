"""Programs that commands run: starting them, restricting their rights and resources, and ending them with their
command."""
