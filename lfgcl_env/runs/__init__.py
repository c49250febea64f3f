"""The run folder: records, logs and reports."""
