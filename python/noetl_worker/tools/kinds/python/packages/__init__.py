"""Packages of python steps: the packages that a step asks for, their environments on disk, and the build by uv."""
