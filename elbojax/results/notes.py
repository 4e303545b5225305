"""What the parts of a note begin with, by which a report puts each in its line."""

START = "start: "
"""Beginning of the part that tells of another start."""
LABELS = "labels: "
"""Beginning of the part that tells of labellings, in a batch."""
