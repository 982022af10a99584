"""Finished runs of `noetl-worker dev`, stored on disk. CLI commands later show a run or reuse its steps' inputs."""
