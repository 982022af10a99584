"""What is reported to the plane: a result within its budget, its events, sent until the plane has accepted them."""
