"""AutoNL's search: gates with learned thresholds in one supernet, within a budget."""
