"""Finished runs of `noetl-worker dev`, stored on disk. Later commands show a run or reuse the inputs of its steps."""
