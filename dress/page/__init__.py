"""The chat page: what a person says to a model, and the server that shows it."""
