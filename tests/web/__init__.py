"""The form as a page, and the documentation in a browser."""
