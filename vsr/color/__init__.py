"""Pixel maths on tensors, without PyAV."""
