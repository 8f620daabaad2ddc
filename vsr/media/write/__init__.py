"""From frames and packets to a file, a pipe or images."""
