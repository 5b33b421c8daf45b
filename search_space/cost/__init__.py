"""What a network costs: MACs and parameters, counted; latency, measured; both for NNI's profiler-based strategies."""
