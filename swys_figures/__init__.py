"""Figures, tables and widgets of the notebooks, one subject a module.

Functions named ``*_figure`` return a matplotlib figure, ``*_table`` and ``*_rows`` return rows for
``results.as_table``; classes are widgets, or curves that are redrawn while a model learns. They
hold no idea of the lesson, so a reader of the series never has to go here.
"""
