"""A model's chat template, rendered as the server does it: what a conversation's prompt will be."""
