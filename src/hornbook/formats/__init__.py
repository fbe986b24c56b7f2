"""Other people's files: Hugging Face folders, ARPA."""
