"""What a round of critique and revision asks, and how what comes back is read (section 3.1)."""
