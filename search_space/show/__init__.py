"""What ``python -m search_space`` shows: tables and drawings of networks and spaces."""
