"""The routes of the operator's pages; what they show is filled in by the browser's modules."""
