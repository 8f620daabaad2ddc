"""Measure images and videos: metrics, protocols, references."""
