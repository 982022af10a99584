"""Which kinds there are on this worker: allowed, installed, elsewhere."""
