"""A user's own images and masks: what is there, how all of it is read, and one example read so."""
