"""Cars of the Carvana Image Masking Challenge."""
