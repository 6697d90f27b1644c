"""What the packages share: bundle, repository, inference record, log segments, events, data files.

Nothing here runs a model or opens a socket; every sibling package may import it.
"""
