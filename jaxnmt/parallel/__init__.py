"""Axes, meshes and processes: the only package that knows mesh axes."""
