"""Looking at data: examples raw or built, the audit and its page, contact sheets, overlays."""
