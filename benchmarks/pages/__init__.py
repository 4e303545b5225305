"""What the longer pages say of rows."""
