"""A small server of notes, right, and copies of it that are each wrong in one way a real server has been.

Nothing of the lab is imported here: a server starts in its own process, and fast.
"""
