"""What pytest leaves out here."""

# programs without tests, and a pure install lacks what they import
collect_ignore = ["bench_kinds.py", "bench_peers.py", "bench_plane.py", "bench_scale.py", "bench_worker.py"]
