"""What labelling asks and how an answer is read: pure parts of the label stage."""
