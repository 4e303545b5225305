"""What contenders are asked, and what the right answers are."""
