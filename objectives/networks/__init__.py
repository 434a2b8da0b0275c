"""The modules that architectures of every space are built as."""
