"""What a worker or a plane before us left behind: outcomes on disk, batches that a restart forgot."""
