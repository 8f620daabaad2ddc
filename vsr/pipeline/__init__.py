"""The way of a frame, from the reader through the network to the writer."""
