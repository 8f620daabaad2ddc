"""Show videos or images beside each other."""
