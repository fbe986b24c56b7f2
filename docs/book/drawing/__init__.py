"""The book's pictures, each made by the package."""
