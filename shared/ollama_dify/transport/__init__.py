"""Bytes over HTTP/1.1. The only folder that knows httpx and h11."""
