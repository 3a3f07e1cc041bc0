"""A job's checkpoints: written beside the training, sealed, published, moved between zones, taken up at any width.
In: the state of the ranks, a folder, perhaps a zone's own place. Out: the newest sound checkpoint.
jobs.train and jobs.script come in by `shelf` and `save`; `checkpoint` says what lies where.
"""
