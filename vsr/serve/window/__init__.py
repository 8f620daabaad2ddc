"""Show the page in a window of its own, with a queue of files that are read and written where they lie."""
