"""Names that the documents use, and the tests of what they show."""

RUN, CNN_RUN, STOPPED_RUN = "smallnorb-20260101-120000", "smallnorb-cnn-20260101-130000", "stopped"
"""Folders in ``runs``, named as the documents name them; the last one takes the first one's place to be resumed."""
