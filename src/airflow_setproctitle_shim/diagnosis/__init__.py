"""The command line and what it asks: is the shim on, does it work, what else is wrong.

Never imported at start.
"""
