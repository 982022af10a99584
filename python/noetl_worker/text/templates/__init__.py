"""Templates in a tool's config: rendered in a sandbox, within a budget."""
