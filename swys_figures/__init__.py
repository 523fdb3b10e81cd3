"""Figures of the notebooks, one subject a module.

They draw what `swys_utils` measures and hold no idea of the lesson, so a reader of the series never
has to go here. Each returns a matplotlib figure, or an axes that it drew on.
"""
