"""Street scenes of the Cityscapes Image Pairs."""
