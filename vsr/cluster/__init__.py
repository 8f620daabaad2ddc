"""Make the segments of a job side by side, in several processes, on several GPUs and machines, and join them."""
