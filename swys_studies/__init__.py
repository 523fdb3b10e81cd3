"""The command line, and where the shipped numbers come from; the notebooks do not need any of it."""
