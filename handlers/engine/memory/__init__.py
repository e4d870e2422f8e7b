"""What an engine takes of its device's memory: measured, compared with the plan, divided, and what follows when there is none left."""
