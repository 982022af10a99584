"""Packages of python steps: what a step asks for, the environments that are kept, and their build by uv."""
