"""Read and write videos and images by PyAV and OpenCV."""
