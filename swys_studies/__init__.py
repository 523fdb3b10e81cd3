"""The long measurements behind the shipped numbers, each a command of ``swys study``."""
