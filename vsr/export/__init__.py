"""Write networks for other programs and engines."""
