"""What README and the guide claim, beside the rows that it was measured by: the figures, the passages, the page."""
