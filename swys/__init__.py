"""The command ``swys``, and what it does with a reader's own models and images."""
