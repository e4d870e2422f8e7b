"""The wire protocols: JSON and text bodies to requests, requests to JSON bodies and event streams."""
