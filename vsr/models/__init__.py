"""What can be run: cards, checked weights and the networks."""
