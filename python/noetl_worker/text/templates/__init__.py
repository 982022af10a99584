"""Templates in a tool's config, rendered in a sandbox and within a budget of work, memory and time."""
