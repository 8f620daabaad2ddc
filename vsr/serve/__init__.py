"""Serve images and videos over HTTP: REST, a web page, and a window of its own."""
