"""Detections as a service: jobs in memory, budgets, hooks, resumable uploads, webhooks. Nothing of a medium is kept."""
