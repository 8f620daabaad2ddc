"""Compare the file that any tool made of a video with its source."""
