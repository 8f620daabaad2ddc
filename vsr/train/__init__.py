"""Train networks on images and clips: material, degradations, recipes and runs."""
