"""Take frames from the reader through the network to the writer."""
