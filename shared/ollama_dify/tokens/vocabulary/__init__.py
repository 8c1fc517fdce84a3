"""Tokenizer models, one file per family, built from the vocabulary that the server sends."""
