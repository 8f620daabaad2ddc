"""PyAV in and PyAV out: readers, writers, colour and the streams that are copied."""
