"""The service: the queue's dispatcher, notifications, HTTP API and pages. The only home of fastapi."""
