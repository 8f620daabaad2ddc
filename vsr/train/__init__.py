"""Training: pictures, degradations, recipes and the loop."""
