"""The command line, and where the shipped numbers come from; what a notebook needs of it, it imports."""
