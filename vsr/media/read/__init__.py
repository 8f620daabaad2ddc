"""From a file, a pipe or images to frames and packets."""
