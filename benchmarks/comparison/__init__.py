"""Methods compared on equal terms: what they share, who they are, and how results are shown."""
