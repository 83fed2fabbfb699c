"""The object's pose from three cameras (section 5 of the paper)."""
