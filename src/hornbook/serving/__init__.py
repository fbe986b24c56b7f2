"""OpenAI's HTTP interface around the engine: several models side by side, one engine and thread each."""
