"""What is asked of a server, written once for sync and async."""
