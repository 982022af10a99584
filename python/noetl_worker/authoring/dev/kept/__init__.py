"""Finished runs of `noetl-worker dev`, stored on disk so that they can be shown and reused later."""
