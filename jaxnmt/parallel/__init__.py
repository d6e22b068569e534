"""Meshes, sharding rules and processes: the only room that knows mesh axes."""
