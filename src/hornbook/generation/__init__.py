"""The one way to get text out of any rung."""
