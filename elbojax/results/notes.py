"""What the parts of a note begin with, by which a report puts each in its line."""

START = "start: "
"""Of the part that tells of another start."""
LABELS = "labels: "
"""Of the part that tells of labellings, in a batch."""
