"""The runs of `dev` that are over: where they are kept, what of them, and what is asked of them."""
