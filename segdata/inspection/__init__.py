"""Inspecting data: raw and built examples, audits, contact sheets, overlays, pages."""
