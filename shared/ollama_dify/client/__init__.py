"""All requests to a server, written once for sync and async."""
