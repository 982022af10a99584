"""Kind `result_fetch`."""
