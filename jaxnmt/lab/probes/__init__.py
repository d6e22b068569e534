"""Measurements that test the classic claims about models, one per module: each a chart and its numbers."""
