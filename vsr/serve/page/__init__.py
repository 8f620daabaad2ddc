"""Show the service in a browser: images, videos, comparisons, and in the window a queue of files."""
