"""Engines: the same network as a tensor function on different machinery."""
