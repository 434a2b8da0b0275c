"""The engine that trains networks, and the states it keeps."""
