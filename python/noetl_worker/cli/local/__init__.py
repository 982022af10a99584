"""What is typed beside `dev` on a laptop, and what the runs that it keeps answer."""
