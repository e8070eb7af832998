"""Nuclei of the Data Science Bowl 2018."""
