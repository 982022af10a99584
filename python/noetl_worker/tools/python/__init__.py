"""Kind `python`: user code in a forked child of a warm template process."""
