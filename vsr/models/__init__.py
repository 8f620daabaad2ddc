"""Describe models by cards, check their weights and build their networks."""
